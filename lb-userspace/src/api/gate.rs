//! What every request passes: it gets a number, may not come too often or take too long, is refused to whom it is not for, and
//! leaves a line in the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep, timeout};

use super::connections::Peer;
use super::credentials::Credentials;
use super::roles::Caller;
use crate::state::unix_now;
use crate::view::Problem;

/// How long a request may take, its body included.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request of one client in the long run.
const PACE: Duration = Duration::from_micros(500);

/// What a client may ask at once before it has to wait.
const BURST: u32 = 2_000;

/// The longest that a request is made to wait for those before it.
const LONGEST_QUEUE: Duration = Duration::from_secs(5);

/// Clients whose pace is remembered.
const MOST_CLIENTS: usize = 1_024;

/// Which daemon answers, and of which version (RFC 9110, section 10.2.4).
pub(crate) const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("lb/", env!("CARGO_PKG_VERSION")));

/// The number of a request; a client may bring its own.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Asks nothing of the daemon's state but reads it, though it is no GET: the text that is compared is too long for an address.
const READING_POST: &str = "/v1/config/diff";
/// As [`READING_POST`]: the end of such paths below a service.
const READING_POST_OF_SERVICE: &str = "disruption";

/// What all requests share.
#[derive(Debug)]
pub(super) struct Gate {
    /// Tells requests of different daemons apart.
    daemon: u32,
    requests: AtomicU64,
    begun: Instant,
    paces: Mutex<HashMap<Client, Duration>>,
    /// What clients over the network have to prove; `None` where there are none.
    credentials: Option<Arc<Credentials>>,
}

/// Who keeps a pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    User(u32),
    Address(IpAddr),
    /// Everybody else, while too many are remembered.
    Others,
}

impl Client {
    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Local { uid, .. } => Self::User(*uid),
            Peer::Remote { address, .. } => Self::Address(address.ip()),
        }
    }
}

impl Gate {
    pub(super) fn new(credentials: Option<Arc<Credentials>>) -> Arc<Self> {
        let daemon = unix_now() as u32;
        let paces = Mutex::new(HashMap::new());
        Arc::new(Self { daemon, requests: AtomicU64::new(0), begun: Instant::now(), paces, credentials })
    }

    /// The number that a request came with, if it can stand in a log, or else a new one.
    fn number(&self, headers: &HeaderMap) -> String {
        let own = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let harmless = |text: &&str| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        own.filter(harmless).map_or_else(
            || format!("{:08x}-{}", self.daemon, self.requests.fetch_add(1, Ordering::Relaxed)),
            str::to_owned,
        )
    }

    /// How long a client has to wait with its next request; `None` if that is too long.
    ///
    /// The bucket of the limiters (GCRA), which makes wait instead of dropping.
    fn turn(&self, client: Client, now: Duration) -> Option<Duration> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if !paces.contains_key(&client) && paces.len() >= MOST_CLIENTS {
            paces.retain(|_, full| *full > now);
        }
        let has_room = paces.len() < MOST_CLIENTS || paces.contains_key(&client);
        let full = paces.entry(if has_room { client } else { Client::Others }).or_default();
        let next = (*full).max(now) + PACE;
        let wait = next.saturating_sub(now + PACE * BURST);
        (wait <= LONGEST_QUEUE).then(|| *full = next)?;
        Some(wait)
    }
}

/// The outermost layer: numbers and logs requests.
pub(super) async fn accompany(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let number = gate.number(request.headers());
    let peer = request.extensions().get::<Peer>().copied();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begun = Instant::now();
    let (mut response, who) = match admit(&gate, &mut request, peer).await {
        Ok(who) => {
            (timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| too_slow().into_response()), who)
        }
        Err(refused) => refused,
    };
    let (status, took) = (response.status(), begun.elapsed().as_millis());
    // Who reads all the time and is answered is no news.
    let line = format!("request {number}: {who}: {method} {path}: {} in {took} ms", status.as_u16());
    if is_reading(&method, &path) && status.is_success() {
        tracing::debug!(target: "lb::access", "{line}");
    } else {
        tracing::info!(target: "lb::access", "{line}");
    }
    response.headers_mut().insert(header::SERVER, PRODUCT);
    // It has only letters, digits and three signs.
    if let Ok(number) = HeaderValue::from_str(&number) {
        response.headers_mut().insert(REQUEST_ID, number);
    }
    response
}

/// Lets a request in, or answers it; and says whose it is.
async fn admit(gate: &Gate, request: &mut Request, peer: Option<Peer>) -> Result<String, (Response, String)> {
    // Only tests ask without a connection.
    let Some(peer) = peer else { return Ok("somebody".to_owned()) };
    match gate.turn(Client::of(&peer), gate.begun.elapsed()) {
        None => return Err((too_many(), peer.to_string())),
        Some(wait) if wait.is_zero() => {}
        Some(wait) => sleep(wait).await,
    }
    let caller = Caller::of(peer, request.headers(), gate.credentials.as_deref(), unix_now());
    let caller = caller.map_err(|reason| (unauthorized(reason), peer.to_string()))?;
    let who = caller.to_string();
    if !is_reading(request.method(), request.uri().path())
        && let Some(reason) = caller.refusal().await
    {
        return Err((Problem::new(StatusCode::FORBIDDEN, reason).into_response(), who));
    }
    Ok(who)
}

fn is_reading(method: &Method, path: &str) -> bool {
    let of_service = || {
        let below = path.strip_prefix("/v1/services/").and_then(|below| below.split_once('/'));
        below.is_some_and(|(_, end)| end == READING_POST_OF_SERVICE)
    };
    method.is_safe() || (method == Method::POST && (path == READING_POST || of_service()))
}

/// RFC 9110, section 11.6.1.
fn unauthorized(reason: String) -> Response {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, reason);
    ([(header::WWW_AUTHENTICATE, "Bearer realm=\"lb\"")], problem).into_response()
}

fn too_slow() -> Problem {
    let detail = format!(
        "the request was not whole, or not done, within {} s; look at what is in force before you try again",
        PATIENCE.as_secs()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
}

fn too_many() -> Response {
    let rate = 1_000_000 / PACE.as_micros();
    let problem = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        format!("these are more than {rate} requests a second from one client; try again later"),
    );
    // By then nobody is in front of it.
    ([(header::RETRY_AFTER, LONGEST_QUEUE.as_secs())], problem).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparing_and_weighing_is_reading() {
        let cases = [
            (Method::GET, "/v1/services/web/backends", true),
            (Method::HEAD, "/v1/status", true),
            (Method::POST, "/v1/config/diff", true),
            (Method::POST, "/v1/services/web/disruption", true),
            (Method::PUT, "/v1/services/web/disruption", false),
            (Method::POST, "/v1/services/web/backends/disruption", false),
            (Method::POST, "/v1/services/disruption", false),
            (Method::POST, "/v1/services", false),
            (Method::DELETE, "/v1/services/web", false),
        ];
        for (method, path, reads) in cases {
            assert_eq!(is_reading(&method, path), reads, "{method} {path}");
        }
    }

    #[test]
    fn a_client_may_hurry_for_a_while_and_then_keeps_its_pace() {
        let gate = Gate::new(None);
        let now = Duration::from_secs(7);
        let turn = |client| gate.turn(client, now);
        for _ in 0..BURST {
            assert_eq!(turn(Client::User(1)), Some(Duration::ZERO));
        }
        assert_eq!(turn(Client::User(1)), Some(PACE));
        assert_eq!(turn(Client::User(2)), Some(Duration::ZERO), "others are not concerned");
        let waiting = std::iter::from_fn(|| turn(Client::User(1))).take(1_000_000);
        assert_eq!(waiting.last(), Some(LONGEST_QUEUE));
        assert_eq!(turn(Client::User(1)), None);
        assert_eq!(gate.turn(Client::User(1), now + LONGEST_QUEUE), Some(PACE));
    }

    #[test]
    fn no_crowd_of_clients_makes_memory_grow() {
        let gate = Gate::new(None);
        for uid in 0..10_000 {
            assert!(gate.turn(Client::User(uid), Duration::ZERO).is_some());
        }
        assert_eq!(gate.paces.lock().unwrap().len(), MOST_CLIENTS + 1);
        gate.turn(Client::User(20_000), Duration::from_mins(1));
        assert_eq!(gate.paces.lock().unwrap().len(), 1, "who has not come for long is forgotten");
    }

    #[test]
    fn numbers_that_can_stand_in_a_log_are_kept() {
        let gate = Gate::new(None);
        let number = |value: &'static [u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            gate.number(&HeaderMap::from_iter([(REQUEST_ID, value)]))
        };
        assert_eq!(number(b"deploy-17.a_b"), "deploy-17.a_b");
        let other = [&b""[..], b"a b", b"a\"b", &[b'x'; 65], b"\xff"].map(number);
        let own: Vec<_> = other.iter().map(|number| number.split_once('-').unwrap().1).collect();
        assert_eq!(own, ["0", "1", "2", "3", "4"]);
    }
}
