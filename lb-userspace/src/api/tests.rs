//! The API as its own client sees it.

use std::time::Duration;

use axum::body::Body as RawBody;
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::double::Daemon;
use super::*;
use crate::client::{Client, ClientError};
use crate::config::packets_per_source;
use crate::controller::ListAction;
use crate::model::{AdminState, Limit, ListName, Weight};
use crate::suggestion::Quantile;
use crate::view::{AddBackend, DrainBackend, PrefixList, SetBackend};

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn client(daemon: &Daemon) -> Client {
    Client::new(daemon.socket())
}

async fn send(daemon: &Daemon, request: Request<RawBody>) -> (StatusCode, String, Problem) {
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (status, kind) = (response.status(), response.headers()["content-type"].to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_change_travels_from_the_client_to_the_controller() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    assert_eq!(client.status().await.unwrap().version, "0.1.0");
    assert!(client.services().await.unwrap().is_empty());
    assert!(client.backends("web").await.unwrap().is_empty());
    let new = AddBackend { address: "[2001:db8::1]:80".to_owned(), weight: Weight(7) };
    assert_eq!(client.add_backend("web", &new).await.unwrap().generation, 2);
    let endpoint: Endpoint = "10.0.1.1:*".parse().unwrap();
    client.remove_backend("web", endpoint).await.unwrap();
    client.set_backend("web", endpoint, &SetBackend { weight: Weight(8) }).await.unwrap();
    let changes = std::mem::take(&mut *daemon.double.changes.lock().unwrap());
    let [
        Change::AddBackend { backend, .. },
        Change::RemoveBackend { endpoint: removed, .. },
        Change::SetWeight { service, endpoint: set, weight },
    ] = &changes[..]
    else {
        panic!("{} changes", changes.len());
    };
    assert_eq!((service.as_str(), *set, *weight), ("web", endpoint, Weight(8)));
    assert_eq!((backend.endpoint.to_string(), backend.weight), (new.address, Weight(7)));
    assert_eq!(*removed, endpoint);
}

#[tokio::test]
async fn states_travel_from_the_client_to_the_controller() {
    let daemon = Daemon::start();
    let (client, endpoint) = (client(&daemon), endpoint("[2001:db8::1]:80"));
    let drain = DrainBackend { timeout: Some("90s".to_owned()) };
    client.drain_backend("web", endpoint, &drain).await.unwrap();
    client.retire_backend("web", endpoint).await.unwrap();
    client.ready_backend("web", endpoint).await.unwrap();
    let changes = std::mem::take(&mut *daemon.double.changes.lock().unwrap());
    let timeout = Some(Duration::from_secs(90));
    let states = [AdminState::Drain { timeout }, AdminState::Maintenance, AdminState::Ready];
    let expected = states.map(|state| Change::SetState { service: "web".to_owned(), endpoint, state });
    assert_eq!(changes, expected);
}

/// A drain needs no body, and one that is there must make sense.
#[tokio::test]
async fn bodies_of_drains_are_checked() {
    let daemon = Daemon::start();
    let cases = [
        ("", StatusCode::CONFLICT, "10.0.1.1:80 drains already"),
        ("{}", StatusCode::CONFLICT, "10.0.1.1:80 drains already"),
        ("{\"timeout\":\"0s\"}", StatusCode::BAD_REQUEST, "timeout: \"0s\" is not from 1s to 168h"),
        ("{\"timeout\":\"999h\"}", StatusCode::BAD_REQUEST, "timeout: \"999h\" is not from 1s to 168h"),
        ("{\"timeout\":\"-1s\"}", StatusCode::BAD_REQUEST, "timeout: \"-1s\" is not a duration"),
        ("{\"timeout\":5}", StatusCode::BAD_REQUEST, "the body is not as it should be: invalid type"),
        ("{\"time\":\"5s\"}", StatusCode::BAD_REQUEST, "the body is not as it should be: unknown field"),
        ("{", StatusCode::BAD_REQUEST, "the body is not as it should be: EOF"),
    ];
    for (body, status, words) in cases {
        let request = Request::post("/v1/services/web/backends/10.0.1.1:80/drain");
        let request = request.header("host", "lb").body(RawBody::from(body)).unwrap();
        let (code, _, problem) = send(&daemon, request).await;
        assert_eq!(code, status, "{body}");
        assert!(problem.detail.starts_with(words), "{body}: {}", problem.detail);
    }
    assert!(daemon.double.changes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn limits_travel_from_the_client_to_the_controller() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    let view = client.limit(Some("web"), "source-packets").await.unwrap();
    assert_eq!(client.limits(Some("web")).await.unwrap(), std::slice::from_ref(&view));
    assert_eq!(client.limits(None).await.unwrap(), std::slice::from_ref(&view));
    client.set_limit(Some("web"), "second", &view.settings).await.unwrap();
    client.set_limit(None, "first", &view.settings).await.unwrap();
    client.remove_limit(Some("web"), "second").await.unwrap();
    client.remove_limit(None, "first").await.unwrap();
    let changes = std::mem::take(&mut *daemon.double.changes.lock().unwrap());
    let policy = packets_per_source(1_000, 200);
    let set = |service: Option<&str>, name: &str| Change::SetLimit {
        service: service.map(str::to_owned),
        limit: Limit::try_new(name, policy).unwrap(),
    };
    let remove = |service: Option<&str>, name: &str| Change::RemoveLimit {
        service: service.map(str::to_owned),
        name: name.to_owned(),
    };
    let expected = [
        set(Some("web"), "second"),
        set(None, "first"),
        remove(Some("web"), "second"),
        remove(None, "first"),
    ];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn suggestions_travel_from_the_controller_to_the_client() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    let [suggestion] =
        client.suggestions(Some("web"), None, Quantile::default()).await.unwrap().try_into().unwrap();
    assert_eq!((suggestion.service.as_deref(), suggestion.limiter.as_str()), (Some("web"), "probe"));
    assert_eq!((suggestion.quantile, suggestion.hits, suggestion.busiest.len()), (99.9, 9, 2));
    let quantile = "75.125".parse().unwrap();
    let [other] = client.suggestions(None, Some("a/b"), quantile).await.unwrap().try_into().unwrap();
    assert_eq!((other.service, other.limiter.as_str(), other.quantile), (None, "a/b", 75.125));
    let missing = client.suggestions(Some("wbe"), None, quantile).await.unwrap_err();
    assert!(matches!(missing, ClientError::Problem(Problem { status: 404, .. })), "{missing}");
}

#[tokio::test]
async fn who_is_limited_travels_to_the_client() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    let all = client.limited(None, 5).await.unwrap();
    assert_eq!(all.sources[1].source.as_deref(), Some("2001:db8::/64"));
    let first = client.limited(Some("web"), 1).await.unwrap();
    assert_eq!((first.sources.len(), first.sources_total), (1, 2));
    assert_eq!(first.sources, all.sources[..1]);
}

#[tokio::test]
async fn limits_that_cannot_be_are_refused_with_their_keys() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    let problem = |error| match error {
        ClientError::Problem(problem) => (problem.status, problem.detail),
        other => panic!("{other}"),
    };
    let keys = |text: &str| serde_json::from_str(text).unwrap();
    let body = keys(r#"{"scope":"source","packets":"1k/s","burst":0,"action":"dorp"}"#);
    let expected = "burst: 0 is not from 1 to 1000000000; action: \"dorp\" is unknown; expected \"drop\" or \
                    \"mark\" or \"shadow\"";
    let refused = client.set_limit(Some("web"), "x", &body).await.unwrap_err();
    assert_eq!(problem(refused), (400, expected.to_owned()));
    let missing = client.limit(Some("web"), "none").await.unwrap_err();
    let expected = "there is no limiter \"none\"; see `lb limit list web`".to_owned();
    assert_eq!(problem(missing), (404, expected));
}

#[tokio::test]
async fn refusals_keep_their_kind_and_their_sentence() {
    let daemon = Daemon::start();
    let problem = |error| match error {
        ClientError::Problem(problem) => (problem.status, problem.detail),
        other => panic!("{other}"),
    };
    let client = client(&daemon);
    let not_found = client.backends("a/b").await.unwrap_err();
    assert_eq!(problem(not_found), (404, "there is no service \"a/b\"".to_owned()));
    let refused =
        client.drain_backend("web", endpoint("10.0.1.1:80"), &DrainBackend::default()).await.unwrap_err();
    assert_eq!(problem(refused), (409, "10.0.1.1:80 drains already".to_owned()));
    let new = AddBackend { address: "10.0.1.300:80".to_owned(), weight: Weight(7) };
    let malformed = problem(client.add_backend("web", &new).await.unwrap_err());
    assert_eq!(malformed.0, 400);
    assert!(
        malformed.1.starts_with("backend address \"10.0.1.300:80\": 300 is not a byte"),
        "{}",
        malformed.1
    );
}

/// Each method is the change that it says, and a list may be far longer than other requests.
#[tokio::test]
async fn deny_and_allow_lists_travel_whole() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    assert_eq!(client.list(ListName::Deny).await.unwrap().prefixes, ["198.51.100.0/24"]);
    let prefixes: Vec<String> =
        (0..100_000u32).map(|n| format!("2001:db8:{:x}:{:x}::/64", n >> 16, n as u16)).collect();
    let long = PrefixList { prefixes };
    for action in [ListAction::Add, ListAction::Remove, ListAction::Replace] {
        assert_eq!(client.change_list(ListName::Allow, action, &long).await.unwrap().generation, 3);
    }
    let changes = std::mem::take(&mut *daemon.double.list_changes.lock().unwrap());
    let actions: Vec<_> = changes.iter().map(|change| (change.list, change.action)).collect();
    let expected = [ListAction::Add, ListAction::Remove, ListAction::Replace];
    assert_eq!(actions, expected.map(|action| (ListName::Allow, action)));
    assert!(changes.iter().all(|change| change.prefixes.len() == 100_000));
}

#[tokio::test]
async fn requests_that_no_handler_sees_are_problems_too() {
    let daemon = Daemon::start();
    let backends = "/v1/services/web/backends";
    let valid = "{\"address\":\"10.0.1.1:80\"}";
    let large = format!("{{\"address\":\"{}\"}}", "1".repeat(BODY_LIMIT));
    let json = "application/json";
    let cases = [
        ("GET", "/v1/limited?count=0", json, "", 400, "count: 0 is not from 1 to 1024"),
        ("GET", "/v1/limited?count=1025", json, "", 400, "count: 1025 is not from 1 to 1024"),
        ("GET", "/v1/limited?count=x", json, "", 400, "invalid digit"),
        (
            "GET",
            "/v1/limited?limit=5",
            json,
            "",
            400,
            "there is no parameter \"limit\"; there are: service, count, fields",
        ),
        ("GET", "/v1/limited?service=a%2Fb", json, "", 404, "there is no service \"a/b\""),
        ("POST", "/v1/limited", json, "", 405, "/v1/limited does not take POST"),
        ("GET", "/v2", json, "", 404, "there is nothing at /v2; /v1/openapi.json tells what there is"),
        (
            "PUT",
            "/v1/status",
            json,
            "",
            405,
            "/v1/status does not take PUT; see the allow header of this answer",
        ),
        ("POST", backends, json, "{", 400, "Failed to parse the request body as JSON"),
        ("POST", backends, json, "{}", 400, "missing field `address`"),
        ("POST", backends, json, "{\"address\":\"a\",\"x\":1}", 400, "unknown field `x`"),
        ("POST", backends, json, "{\"address\":\"10.0.1.1:80\",\"weight\":65536}", 400, "expected u16"),
        (
            "POST",
            "/v1/deny",
            json,
            "{\"prefixes\":[\"a\"]}",
            400,
            "deny prefix \"a\": \"a\" is not an IPv4 address",
        ),
        (
            "PUT",
            "/v1/allow",
            json,
            "{\"prefixes\":[\"10.0.0.0/33\"]}",
            400,
            "allow prefix \"10.0.0.0/33\": prefix length",
        ),
        ("DELETE", "/v1/deny", json, "", 400, "Failed to parse the request body as JSON"),
        ("DELETE", "/v1/deny", json, "{}", 400, "missing field `prefixes`"),
        ("PATCH", "/v1/deny", json, "", 405, "/v1/deny does not take PATCH"),
        ("POST", backends, "text/plain", valid, 415, "application/json"),
        ("POST", backends, json, &large, 413, "the body is larger than 65536 bytes"),
        ("GET", "/v1/services/%ff/backends", json, "", 400, "UTF-8"),
        ("PATCH", "/v1/services/web/backends/10.0.1.1:80", json, "{}", 400, "missing field `weight`"),
        ("PATCH", "/v1/services/web/backends/x", json, "{\"weight\":1}", 400, "there is no port"),
        (
            "GET",
            "/v1/services/web/suggestions?quantile=0",
            json,
            "",
            400,
            "quantile: \"0\" is not a percentage",
        ),
        (
            "GET",
            "/v1/suggestions?quantil=99",
            json,
            "",
            400,
            "there is no parameter \"quantil\"; did you mean quantile?",
        ),
        ("DELETE", "/v1/services/web/backends/x", json, "", 400, "backend address \"x\": there is no port"),
    ];
    for (method, path, kind, body, status, words) in cases {
        let request =
            Request::builder().method(method).uri(path).header("host", "lb").header("content-type", kind);
        let (code, kind, problem) =
            send(&daemon, request.body(RawBody::from(body.to_owned())).unwrap()).await;
        assert_eq!((code.as_u16(), problem.status), (status, status), "{method} {path}");
        assert_eq!(kind, "application/problem+json", "{method} {path}");
        assert!(problem.detail.contains(words), "{method} {path}: {}", problem.detail);
    }
}

#[tokio::test]
async fn stopping_removes_the_socket() {
    let daemon = Daemon::start();
    client(&daemon).status().await.unwrap();
    let folder = daemon.stop().await;
    assert!(!folder.path().join("lb.sock").exists());
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_does_not_keep_the_daemon() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(b"POST /v1/services/web/backends HTTP/1.1\r\ncontent-length: 9\r\n").await.unwrap();
    // Answers are in order of arrival: after this one the server has seen the other connection.
    client(&daemon).status().await.unwrap();
    tokio::time::timeout(Duration::from_secs(3), daemon.stop()).await.unwrap();
}

/// A change that was thought of for another state of things is refused, and every answer tells of which state it is.
#[tokio::test]
async fn a_change_may_be_for_one_generation_only() {
    let daemon = Daemon::start();
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let read = Request::get("/v1/services").header("host", "lb").body(RawBody::empty()).unwrap();
    let response = sender.send_request(read).await.unwrap();
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    response.into_body().collect().await.unwrap();
    assert_eq!(tag, "\"1\"");
    for (tag, status, words) in [
        (tag.as_str(), StatusCode::OK, ""),
        ("*", StatusCode::OK, ""),
        ("\"7\"", StatusCode::PRECONDITION_FAILED, "generation 1 is in force, and no longer 7: look at what"),
        ("7", StatusCode::BAD_REQUEST, "if-match: \"7\" is no generation; the etag of an answer is one"),
        ("\"x\"", StatusCode::BAD_REQUEST, "if-match: "),
    ] {
        let request = Request::delete("/v1/services/web/backends/10.0.1.1:80").header("host", "lb");
        let request = request.header("if-match", tag).body(RawBody::empty()).unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{tag}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        assert!(problem.is_none_or(|problem| problem.detail.starts_with(words)), "{tag}");
    }
    assert_eq!(daemon.double.changes.lock().unwrap().len(), 2);
}

/// What a GET is answered with: its body, and where the next page is.
async fn get(daemon: &Daemon, path: &str) -> Result<(serde_json::Value, Option<String>), String> {
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "lb").body(RawBody::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (status, link) = (response.status(), response.headers().get("link").cloned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    if !status.is_success() {
        return Err(body["detail"].as_str().unwrap().to_owned());
    }
    Ok((body, link.map(|link| link.to_str().unwrap().to_owned())))
}

#[tokio::test]
async fn answers_are_cut_to_measure() {
    let daemon = Daemon::start();
    let one = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let (answer, link) = get(&daemon, "/v1/limits?fields=name,over").await.unwrap();
    assert_eq!((answer, link), (one(r#"[{"name": "source-packets", "over": 5}]"#), None));
    let (answer, _) = get(&daemon, "/v1/status?fields=limiter_samples").await.unwrap();
    assert_eq!(answer, one(r#"{"limiter_samples": {"told": 40, "lost": 2}}"#));
    // The name of a service's key can be any.
    let (answer, _) = get(&daemon, "/v1/services/web?fields=vip,unheard").await.unwrap();
    assert_eq!(answer, one(r#"{"vip": "192.0.2.10:80"}"#));
    // Also of lists in an object.
    let (answer, link) = get(&daemon, "/v1/deny?limit=1&offset=1").await.unwrap();
    assert_eq!((answer, link), (one(r#"{"prefixes": []}"#), None));
    // Parameters of the handler's stay.
    let (answer, _) = get(&daemon, "/v1/limited?count=1&fields=sources_total").await.unwrap();
    assert_eq!(answer, one(r#"{"sources_total": 2}"#));
}

/// Whoever asks for the head of an answer gets no other status than who asks for all of it.
#[tokio::test]
async fn heads_have_nothing_to_cut() {
    let daemon = Daemon::start();
    for (path, expected) in [
        ("/v1/limits?fields=name", 200),
        ("/v1/flows?limit=2&fields=slot", 200),
        ("/v1/limits?fields=x", 400),
    ] {
        let stream = UnixStream::connect(daemon.socket()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::head(path).header("host", "lb").body(RawBody::empty()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{path}");
    }
}

#[tokio::test]
async fn pages_lead_to_the_next() {
    let daemon = Daemon::start();
    let (answer, link) = get(&daemon, "/v1/config/history?limit=1&fields=generation").await.unwrap();
    assert_eq!(answer.as_array().unwrap().len(), 1);
    assert_eq!(link.unwrap(), "<?fields=generation&limit=1&offset=1>; rel=\"next\"");
    let (answer, link) = get(&daemon, "/v1/config/history?fields=generation&limit=1&offset=1").await.unwrap();
    assert_eq!((answer.as_array().unwrap().len(), link), (1, None));
    // The flow table makes its pages itself.
    let (answer, link) = get(&daemon, "/v1/flows?service=web&limit=2&fields=slot").await.unwrap();
    assert_eq!(answer, serde_json::json!([{"slot": 7}, {"slot": 7}]));
    assert_eq!(link.unwrap(), "<?service=web&limit=2&offset=2>; rel=\"next\"");
}

#[tokio::test]
async fn what_cannot_be_cut_is_refused() {
    let daemon = Daemon::start();
    for (path, sentence) in [
        ("/v1/limits?fields=nmae", "fields: there is no field \"nmae\"; did you mean name?"),
        ("/v1/limits?feilds=name", "there is no parameter \"feilds\"; did you mean fields?"),
        ("/v1/status?limit=1", "there is no parameter \"limit\"; there are: fields"),
        ("/v1/limits?limit=0", "limit: \"0\" is no number from 1 on"),
        ("/v1/limits?offset=-1", "offset: \"-1\" is no number from 0 on"),
        ("/v1/flows?limit=1001", "limit: 1001 is not from 1 to 1000"),
        (
            "/v1/flows/lookup?protocol=tcp&source=198.51.100.7&vip=192.0.2.10:80",
            "source: \"198.51.100.7\" is no ADDRESS:PORT such as 198.51.100.7:40000 or [2001:db8::7]:40000",
        ),
        (
            "/v1/flows/lookup?protocol=tcp&source=[2001:db8::7]:1&vip=192.0.2.10:80",
            "no packet goes from 2001:db8::7 to 192.0.2.10: give two addresses of one family",
        ),
    ] {
        assert_eq!(get(&daemon, path).await.unwrap_err(), sentence, "{path}");
    }
}
