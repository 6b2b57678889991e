//! Followers on real sockets: those who keep up, those who resume, and those who do not read.

use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message as Received;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::api::double::Daemon;
use crate::client::{Client, ClientError};

/// So many that no socket has room for them.
fn storm(daemon: &Daemon) {
    for _ in 0..8_000 {
        daemon.double.journal.tell(EventKind::Drop, None, "x".repeat(900));
    }
}

#[tokio::test]
async fn a_client_follows_and_resumes() {
    let daemon = Daemon::start();
    let (client, journal) = (Client::new(daemon.socket()), &daemon.double.journal);
    let mut events = client.events(None).await.unwrap();
    journal.tell(EventKind::Health, Some("web"), "one".to_owned());
    journal.tell(EventKind::Change, None, "two\nlines".to_owned());
    let first = events.next().await.unwrap();
    assert_eq!((first.to_string().as_str(), first.service.as_deref()), ("health  web: one", Some("web")));
    drop(events);
    let mut events = client.events(Some(&first.id)).await.unwrap();
    assert_eq!(events.next().await.unwrap().text, "two\nlines");
    journal.close();
    let last = events.next().await.unwrap();
    assert_eq!((last.kind, last.text.as_str()), (EventKind::Gap, "the daemon is shutting down"));
    assert_eq!(events.next().await, None);
    let ClientError::Problem(problem) = client.events(Some("7")).await.unwrap_err() else { panic!() };
    let expected = "\"7\" is no id of an event; each event has one, and 0-0 stands for what was before all that are kept";
    assert_eq!((problem.status, problem.detail.as_str()), (400, expected));
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_so_and_cut_off() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: lb\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    storm(&daemon);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "the answer is whole");
    let last = rest.lines().rev().find(|line| line.starts_with("data: ")).unwrap();
    assert!(last.contains("too slow: more than 1024 events have come since event "), "{last}");
    assert!(rest.matches("data: ").count() < 8_000);
}

#[tokio::test]
async fn a_websocket_gets_the_same_and_a_reason_to_go() {
    let daemon = Daemon::start();
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let (mut socket, _) = client_async("ws://lb/v1/events", stream).await.unwrap();
    daemon.double.journal.tell(EventKind::Limit, Some("web"), "one".to_owned());
    socket.send(Received::text("nobody listens")).await.unwrap();
    let text = loop {
        match socket.next().await.unwrap().unwrap() {
            Received::Text(text) => break text,
            other => assert!(other.is_ping(), "{other}"),
        }
    };
    let event: Event = serde_json::from_str(&text).unwrap();
    assert_eq!(event.to_string(), "limit   web: one");
    storm(&daemon);
    let (mut last, mut told) = (String::new(), 0);
    let close = loop {
        match socket.next().await.unwrap().unwrap() {
            Received::Text(text) => (last, told) = (text.to_string(), told + 1),
            Received::Close(close) => break close.unwrap(),
            other => assert!(other.is_ping(), "{other}"),
        }
    };
    assert!(told < 8_000 && last.contains("too slow"), "{told}: {last}");
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::Policy, "too slow"));
}

#[tokio::test]
async fn half_an_upgrade_is_refused() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let request =
        "GET /v1/events HTTP/1.1\r\nHost: lb\r\nUpgrade: websocket\r\nConnection: close, upgrade\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("problem+json"), "{answer}");
}
