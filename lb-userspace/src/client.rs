//! The CLI's side of the API: HTTP/1.1 over the daemon's Unix socket, or over TLS, one connection a call.

mod events;
mod place;

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_MATCH, LINK, SERVER};
use hyper::http::response::Parts;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

pub use self::events::Events;
pub use self::place::{Remote, RemoteError, Trust};

use self::place::Place;
use crate::api::PRODUCT;
use crate::config::{LimitKeys, ServiceKeys};
use crate::controller::ListAction;
use crate::model::{Endpoint, ListName, Protocol};
use crate::suggestion::Quantile;
use crate::view::{
    AddBackend, Applied, BackendView, CheckView, ConfigApplied, ConfigDiff, DrainBackend, FlowCount,
    FlowLookup, FlowView, GenerationView, LimitView, LimitedView, PlanView, PrefixList, Problem, Rollback,
    ServiceSlots, ServiceView, SetBackend, Status, Suggestion,
};

/// The daemon answers in milliseconds; what takes this long does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// A whole configuration may be large and a disk slow.
const LONG_PATIENCE: Duration = Duration::from_mins(1);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, the socket is not for this user, or the other end is not who it should be.
    #[error("cannot reach the daemon at {place}: {}; {}", plain(source), advice(source))]
    Unreachable {
        /// The socket, or the address.
        place: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The daemon accepted the call but did not answer in time.
    #[error("the daemon at {place} has not answered within {} s; its log tells more", patience.as_secs())]
    Silent {
        /// The socket, or the address.
        place: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The daemon answered that it will not.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// The answer is none of this API.
    #[error("{place} does not speak the API of this lb: {reason}; is it another version or another program?")]
    Protocol {
        /// The socket, or the address.
        place: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The answer is one of another version's API.
    #[error(
        "the daemon at {place} is {theirs} and this is {}, which does not understand its answer: {reason}; use the lb \
         that the daemon was started with, or restart the daemon with this one",
        product()
    )]
    Version {
        /// The socket, or the address.
        place: String,
        /// What the daemon says it is.
        theirs: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// What this is, as the daemon's header `server` says it.
fn product() -> String {
    PRODUCT.to_str().unwrap_or_default().to_owned()
}

/// A successful answer.
struct Answer {
    bytes: Bytes,
    /// Of which generation it is.
    tag: Option<Tag>,
    /// Which daemon it is from.
    product: Option<String>,
    /// Where the next page is, if there is one.
    next: Option<String>,
}

/// The kernel's words without the number that std appends.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        // What is wrong with the certificate of the other end, or with what it says (rustls).
        io::ErrorKind::InvalidData => {
            "--ca names the authorities to trust, --certificate what to prove; the daemon's certificate names its hosts"
        }
        io::ErrorKind::PermissionDenied => "run this as root, or as a user of the socket's group",
        _ => "is it running? (start it with: lb run --config lb.toml)",
    }
}

/// Calls the daemon at one place.
#[derive(Clone, Debug)]
pub struct Client {
    place: Place,
    expected: Option<Tag>,
}

/// Of which generation something is that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(HeaderValue);

impl Client {
    /// A client of the daemon at `socket`; nothing is connected before the first call.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { place: Place::Socket(socket.into()), expected: None }
    }

    /// A client of a daemon elsewhere.
    pub fn remote(remote: Remote) -> Self {
        Self { place: Place::Remote(Arc::new(remote)), expected: None }
    }

    /// The same, whose changes are refused if anything has changed since that was read.
    #[must_use]
    pub fn expecting(&self, tag: Tag) -> Self {
        Self { expected: Some(tag), ..self.clone() }
    }

    /// The daemon as a whole.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Method::GET, "/v1/status", None).await
    }

    /// Every service.
    pub async fn services(&self) -> Result<Vec<ServiceView>, ClientError> {
        self.call(Method::GET, "/v1/services", None).await
    }

    /// A service as the configuration would have it.
    pub async fn service(&self, name: &str) -> Result<(ServiceKeys, Tag), ClientError> {
        let mut answer = self.ask(Method::GET, &service_path(name), None, PATIENCE).await?;
        let tag = answer.tag.take();
        Ok((self.read(&answer)?, tag.ok_or_else(|| self.protocol(&"its answer has no etag"))?))
    }

    /// Adds a service.
    pub async fn add_service(&self, keys: &ServiceKeys) -> Result<Applied, ClientError> {
        self.send(Method::POST, "/v1/services", keys).await
    }

    /// Puts a service in the place of the one of this name.
    pub async fn set_service(&self, name: &str, keys: &ServiceKeys) -> Result<Applied, ClientError> {
        self.send(Method::PUT, &service_path(name), keys).await
    }

    /// Removes a service.
    pub async fn remove_service(&self, name: &str) -> Result<Applied, ClientError> {
        self.call(Method::DELETE, &service_path(name), None).await
    }

    /// The backends of one service.
    pub async fn backends(&self, service: &str) -> Result<Vec<BackendView>, ClientError> {
        self.call(Method::GET, &backends_path(service), None).await
    }

    /// Adds a backend to a service.
    pub async fn add_backend(&self, service: &str, backend: &AddBackend) -> Result<Applied, ClientError> {
        self.send(Method::POST, &backends_path(service), backend).await
    }

    /// Changes a backend of a service.
    pub async fn set_backend(
        &self,
        service: &str,
        endpoint: Endpoint,
        backend: &SetBackend,
    ) -> Result<Applied, ClientError> {
        self.send(Method::PATCH, &backend_path(service, endpoint), backend).await
    }

    /// Removes a backend from a service.
    pub async fn remove_backend(&self, service: &str, endpoint: Endpoint) -> Result<Applied, ClientError> {
        self.call(Method::DELETE, &backend_path(service, endpoint), None).await
    }

    /// Stops new flows to a backend.
    pub async fn drain_backend(
        &self,
        service: &str,
        endpoint: Endpoint,
        drain: &DrainBackend,
    ) -> Result<Applied, ClientError> {
        self.send(Method::POST, &format!("{}/drain", backend_path(service, endpoint)), drain).await
    }

    /// Puts a backend to work.
    pub async fn ready_backend(&self, service: &str, endpoint: Endpoint) -> Result<Applied, ClientError> {
        self.call(Method::POST, &format!("{}/ready", backend_path(service, endpoint)), None).await
    }

    /// Takes a backend out of service.
    pub async fn retire_backend(&self, service: &str, endpoint: Endpoint) -> Result<Applied, ClientError> {
        self.call(Method::POST, &format!("{}/maintenance", backend_path(service, endpoint)), None).await
    }

    /// The prefixes on a list.
    pub async fn list(&self, list: ListName) -> Result<PrefixList, ClientError> {
        self.call(Method::GET, &format!("/v1/{list}"), None).await
    }

    /// Changes a list.
    pub async fn change_list(
        &self,
        list: ListName,
        action: ListAction,
        prefixes: &PrefixList,
    ) -> Result<Applied, ClientError> {
        let method = match action {
            ListAction::Add => Method::POST,
            ListAction::Remove => Method::DELETE,
            ListAction::Replace => Method::PUT,
        };
        self.send(method, &format!("/v1/{list}"), prefixes).await
    }

    /// The limiters that packets of one service meet, or all there are.
    pub async fn limits(&self, service: Option<&str>) -> Result<Vec<LimitView>, ClientError> {
        self.call(Method::GET, &limits_path(service), None).await
    }

    /// One limiter of a service, or of all services.
    pub async fn limit(&self, service: Option<&str>, name: &str) -> Result<LimitView, ClientError> {
        self.call(Method::GET, &limit_path(service, name), None).await
    }

    /// Who is over the limits that packets of one service meet, or over any: the first `count` sources.
    pub async fn limited(&self, service: Option<&str>, count: u16) -> Result<LimitedView, ClientError> {
        let service = of_service('&', service);
        self.call(Method::GET, &format!("/v1/limited?count={count}{service}"), None).await
    }

    /// The first flows that are remembered, of one service or of all; and whether there are more.
    pub async fn flows(
        &self,
        service: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<FlowView>, bool), ClientError> {
        /// Flows in one answer.
        const PAGE: usize = 1_000;
        let mut flows: Vec<FlowView> = Vec::new();
        let mut query = Some(format!("?limit={}{}", PAGE.min(limit + 1), of_service('&', service)));
        while let Some(asked) = query.filter(|_| flows.len() <= limit) {
            let answer = self.ask(Method::GET, &format!("/v1/flows{asked}"), None, PATIENCE).await?;
            flows.extend(self.read::<Vec<_>>(&answer)?);
            query = answer.next;
        }
        let more = flows.len() > limit;
        flows.truncate(limit);
        Ok((flows, more))
    }

    /// How many flows are remembered of each backend of a service, or of all.
    pub async fn count_flows(&self, service: Option<&str>) -> Result<Vec<FlowCount>, ClientError> {
        self.call(Method::GET, &format!("/v1/flows/count{}", of_service('?', service)), None).await
    }

    /// Where the packets of a flow go that come from one `ADDRESS:PORT` to another.
    pub async fn lookup(
        &self,
        protocol: Protocol,
        source: &str,
        vip: &str,
    ) -> Result<FlowLookup, ClientError> {
        let (source, vip) = (encode(source), encode(vip));
        let path = format!("/v1/flows/lookup?protocol={protocol}&source={source}&vip={vip}");
        self.call(Method::GET, &path, None).await
    }

    /// Who owns the slots of a service.
    pub async fn slots(&self, service: &str) -> Result<ServiceSlots, ClientError> {
        self.call(Method::GET, &format!("{}/slots", service_path(service)), None).await
    }

    /// What it would cost to make a service what these keys say.
    pub async fn disruption(&self, service: &str, keys: &ServiceKeys) -> Result<PlanView, ClientError> {
        self.send(Method::POST, &format!("{}/disruption", service_path(service)), keys).await
    }

    /// The health checks of a service, or all there are.
    pub async fn checks(&self, service: Option<&str>) -> Result<Vec<CheckView>, ClientError> {
        self.call(Method::GET, &format!("/v1/health{}", of_service('?', service)), None).await
    }

    /// Adds or replaces a limiter of a service, or of all services.
    pub async fn set_limit(
        &self,
        service: Option<&str>,
        name: &str,
        keys: &LimitKeys,
    ) -> Result<Applied, ClientError> {
        self.send(Method::PUT, &limit_path(service, name), keys).await
    }

    /// Removes a limiter of a service, or of all services.
    pub async fn remove_limit(&self, service: Option<&str>, name: &str) -> Result<Applied, ClientError> {
        self.call(Method::DELETE, &limit_path(service, name), None).await
    }

    /// The configuration in force, as text.
    pub async fn config(&self) -> Result<String, ClientError> {
        let answer = self.ask(Method::GET, "/v1/config", None, PATIENCE).await?;
        String::from_utf8(answer.bytes.into()).map_err(|error| self.protocol(&error))
    }

    /// What a configuration, or else what the daemon's files say, would change.
    pub async fn diff_config(&self, text: Option<String>) -> Result<ConfigDiff, ClientError> {
        let body = Some(text.unwrap_or_default().into());
        let answer = self.ask(Method::POST, "/v1/config/diff", body, LONG_PATIENCE).await?;
        self.read(&answer)
    }

    /// Puts a configuration, or else what the daemon's files say, in force; to be confirmed within the time given.
    pub async fn apply_config(
        &self,
        text: Option<String>,
        confirm_within: Option<Duration>,
    ) -> Result<ConfigApplied, ClientError> {
        let query = confirm_within.map(|within| format!("?confirm_within={}", within.as_secs()));
        let query = query.unwrap_or_default();
        let (method, path) = match text {
            Some(_) => (Method::PUT, format!("/v1/config{query}")),
            None => (Method::POST, format!("/v1/config/reload{query}")),
        };
        let answer = self.ask(method, &path, text.map(Into::into), LONG_PATIENCE).await?;
        self.read(&answer)
    }

    /// The generations that are kept, the oldest first.
    pub async fn history(&self) -> Result<Vec<GenerationView>, ClientError> {
        self.call(Method::GET, "/v1/config/history", None).await
    }

    /// Goes back to a generation, or to the one before.
    pub async fn roll_back(&self, generation: Option<u64>) -> Result<ConfigApplied, ClientError> {
        let body = serde_json::to_vec(&Rollback { generation }).map_err(|error| self.protocol(&error))?;
        let answer = self.ask(Method::POST, "/v1/config/rollback", Some(body), LONG_PATIENCE).await?;
        self.read(&answer)
    }

    /// Keeps a generation that waits to be confirmed.
    pub async fn confirm(&self) -> Result<ConfigApplied, ClientError> {
        self.call(Method::POST, "/v1/config/confirm", None).await
    }

    /// What limiters propose that only count: those that packets of one service meet, or those of all services.
    pub async fn suggestions(
        &self,
        service: Option<&str>,
        limiter: Option<&str>,
        quantile: Quantile,
    ) -> Result<Vec<Suggestion>, ClientError> {
        let of = service.map(|service| format!("/services/{}", encode(service))).unwrap_or_default();
        let one = limiter.map(|limiter| format!("&limiter={}", encode(limiter))).unwrap_or_default();
        self.call(Method::GET, &format!("/v1{of}/suggestions?quantile={quantile}{one}"), None).await
    }

    /// What happens from now on, or after the event of this id.
    pub async fn events(&self, after: Option<&str>) -> Result<Events, ClientError> {
        let query = after.map(|id| format!("?after={}", encode(id))).unwrap_or_default();
        let request = self.request(Method::GET, &format!("/v1/events{query}"), None)?;
        let response = self.within(PATIENCE, self.open(request)).await?;
        if response.status().is_success() {
            return Ok(Events::new(response.into_body()));
        }
        let (head, bytes) = self.whole(response).await?;
        Err(self.refused(head.status, &bytes))
    }

    /// A call with a body.
    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.protocol(&error))?;
        self.call(method, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let answer = self.ask(method, path, body, PATIENCE).await?;
        self.read(&answer)
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        serde_json::from_slice(&answer.bytes).map_err(|error| match &answer.product {
            Some(theirs) if theirs.starts_with("lb/") && *theirs != product() => ClientError::Version {
                place: self.place.to_string(),
                theirs: theirs.clone(),
                reason: error.to_string(),
            },
            _ => self.protocol(&error),
        })
    }

    /// A successful answer.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Answer, ClientError> {
        let request = self.request(method, path, body)?;
        let (head, bytes) = self.within(patience, self.exchange(request)).await?;
        let status = head.status;
        if status.is_success() {
            let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
            let product = head.headers.get(SERVER).and_then(text);
            let next =
                head.headers.get(LINK).and_then(text).and_then(|link| next_query(&link).map(str::to_owned));
            return Ok(Answer { bytes, tag: head.headers.get(ETAG).cloned().map(Tag), product, next });
        }
        Err(self.refused(status, &bytes))
    }

    async fn within<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let silent = |_| ClientError::Silent { place: self.place.to_string(), patience };
        tokio::time::timeout(patience, call).await.map_err(silent)?
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        match serde_json::from_slice(bytes) {
            Ok(problem) => ClientError::Problem(problem),
            Err(_) => self.protocol(&format!("it answered {status}")),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.place.host());
        if let Some(bearer) = self.place.bearer() {
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(Tag(tag)) = &self.expected {
            request = request.header(IF_MATCH, tag);
        }
        let request =
            request.header(CONTENT_TYPE, "application/json").body(Full::from(body.unwrap_or_default()));
        request.map_err(|error| self.protocol(&error))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(Parts, Bytes), ClientError> {
        let response = self.open(request).await?;
        self.whole(response).await
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<(Parts, Bytes), ClientError> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| self.broken(&error))?;
        Ok((head, body.to_bytes()))
    }

    /// An answer whose body is still to come.
    async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source| ClientError::Unreachable { place: self.place.to_string(), source };
        match &self.place {
            Place::Socket(path) => {
                self.converse(UnixStream::connect(path).await.map_err(unreachable)?, request).await
            }
            Place::Remote(remote) => {
                self.converse(remote.connect().await.map_err(unreachable)?, request).await
            }
        }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.protocol(&error))?;
        // The sender reports the connection's errors; the task ends with the exchange.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    /// A conversation that ended in its midst. Of TLS 1.3 that is how a daemon refuses a certificate.
    fn broken(&self, error: &hyper::Error) -> ClientError {
        match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            Some(source) if matches!(self.place, Place::Remote(_)) => {
                let source = io::Error::new(source.kind(), source.to_string());
                ClientError::Unreachable { place: self.place.to_string(), source }
            }
            _ => self.protocol(error),
        }
    }

    fn protocol(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Protocol { place: self.place.to_string(), reason: reason.to_string() }
    }
}

fn service_path(service: &str) -> String {
    format!("/v1/services/{}", encode(service))
}

/// The part of a query that asks for one service, if one is asked for.
fn of_service(before: char, service: Option<&str>) -> String {
    service.map_or_else(String::new, |service| format!("{before}service={}", encode(service)))
}

/// The query that leads to the next page, of a header such as `<?limit=100&offset=100>; rel="next"`.
fn next_query(link: &str) -> Option<&str> {
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    Some(target).filter(|_| relation.trim() == "; rel=\"next\"")
}

fn backends_path(service: &str) -> String {
    format!("{}/backends", service_path(service))
}

fn limits_path(service: Option<&str>) -> String {
    match service {
        Some(service) => format!("/v1/services/{}/limits", encode(service)),
        None => "/v1/limits".to_owned(),
    }
}

fn limit_path(service: Option<&str>, name: &str) -> String {
    format!("{}/{}", limits_path(service), encode(name))
}

fn backend_path(service: &str, endpoint: Endpoint) -> String {
    format!("{}/{}", backends_path(service), encode(&endpoint.to_string()))
}

/// Percent-encodes a path segment: what RFC 3986, section 2.3, does not call unreserved.
fn encode(segment: &str) -> String {
    let mut encoded = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn path_segments_are_encoded() {
        let endpoint = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(
            backend_path("a/b c", endpoint),
            "/v1/services/a%2Fb%20c/backends/%5B2001%3Adb8%3A%3A1%5D%3A80"
        );
    }

    #[tokio::test]
    async fn an_absent_daemon_is_unreachable() {
        let error = Client::new("/nonexistent/lb.sock").status().await.unwrap_err();
        let expected = "cannot reach the daemon at /nonexistent/lb.sock: No such file or directory; is it \
            running? (start it with: lb run --config lb.toml)";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_forbidden_socket_has_advice_of_its_own() {
        let source = io::Error::from_raw_os_error(13);
        let error = ClientError::Unreachable { place: "/run/lb/lb.sock".to_owned(), source };
        let expected = "cannot reach the daemon at /run/lb/lb.sock: Permission denied; run this as root, or \
            as a user of the socket's group";
        assert_eq!(error.to_string(), expected);
    }

    /// Answers one connection with `bytes`.
    async fn answer(path: &Path, bytes: &'static [u8]) -> ClientError {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(bytes).await.unwrap();
        };
        let client = Client::new(path);
        let ((), result) = tokio::join!(serve, client.status());
        result.unwrap_err()
    }

    #[tokio::test]
    async fn a_daemon_of_another_version_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let error =
            answer(&path, b"HTTP/1.1 200 OK\r\nserver: lb/9.0.0\r\ncontent-length: 2\r\n\r\n{}").await;
        let expected = format!(
            "the daemon at {} is lb/9.0.0 and this is lb/{}, which does not understand its answer: missing field \
             `version` at line 1 column 2; use the lb that the daemon was started with, or restart the daemon with this one",
            path.display(),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn another_program_on_the_socket_is_told() {
        let answers: [&[u8]; 3] = [
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nhi",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        ];
        for (index, bytes) in answers.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let error = answer(&folder.path().join("s"), bytes).await;
            assert!(matches!(error, ClientError::Protocol { .. }), "{index}: {error}");
        }
    }
}
