//! `/v1/events`: what happens, as it happens, as server-sent events or over a `WebSocket`.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::header::UPGRADE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{MissedTickBehavior, interval, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::openapi::Refusals;
use super::problem::Parameters;
use crate::journal::{End, Follower};
use crate::view::{Event, EventKind, EventsQuery, Problem};

/// Who may follow at once: each keeps a connection for as long as it likes.
const MOST: usize = 64;

/// Between signs of life while nothing happens, so that whoever has gone without a word is found out.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How long a client may take to answer the end of the conversation.
const FAREWELL: Duration = Duration::from_secs(1);

static PLACES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(MOST));

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(follow))
}

/// What happens, as it happens, for as long as the client listens. An event has its kind as its name and an `Event` as its data.
///
/// With `Upgrade: websocket` each `Event` is a message of text of a `WebSocket` (RFC 6455). Whoever is too slow is told so by a last
/// event, of kind `gap`, and the connection ends. The header `Last-Event-ID` says the same as `after`, and counts more.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses(
        (status = OK, body = Event, content_type = "text/event-stream"),
        (status = SWITCHING_PROTOCOLS, description = "It goes on over a WebSocket."), Refusals
    )
)]
async fn follow(
    State(control): State<Shared>,
    headers: HeaderMap,
    Parameters(EventsQuery { after }): Parameters<EventsQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let after = match headers.get("last-event-id") {
        Some(id) => Some(String::from_utf8_lossy(id.as_bytes()).into_owned()),
        None => after,
    };
    let follower = control.journal().follow(after.as_deref()).ok_or_else(|| {
        Problem::bad_request(format!(
            "{:?} is no id of an event; each event has one, and 0-0 stands for what was before all that are kept",
            after.unwrap_or_default()
        ))
    })?;
    let place = PLACES.try_acquire().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{MOST} clients follow the events already"))
    })?;
    if !headers.contains_key(UPGRADE) {
        return Ok(server_sent(follower, place));
    }
    let upgrade = upgrade.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        converse(socket, follower).await;
        drop(place);
    }))
}

/// The event that is told when there will be no more.
fn last(end: &End) -> Event {
    let id = match end {
        End::Behind { last, .. } => last.clone(),
        End::Closed => String::new(),
    };
    let time = crate::state::unix_now();
    Event { id, time, kind: EventKind::Gap, service: None, text: end.to_string() }
}

fn server_sent(follower: Follower, place: SemaphorePermit<'static>) -> Response {
    let events = stream::unfold(Some((follower, place)), async |going| {
        let (mut follower, place) = going?;
        match follower.next().await {
            Ok(event) => Some((render(&event), Some((follower, place)))),
            Err(end) => Some((render(&last(&end)), None)),
        }
    });
    Sse::new(events.map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE))
        .into_response()
}

fn render(event: &Event) -> sse::Event {
    let shown = sse::Event::default().event(event.kind.name()).data(json(event));
    if event.id.is_empty() { shown } else { shown.id(&event.id) }
}

fn json(event: &Event) -> String {
    // It has texts and numbers: there is nothing that JSON has no form for.
    serde_json::to_string(event).unwrap_or_default()
}

/// Until either side has had enough. What the client says is of no interest, but that it says something.
async fn converse(mut socket: WebSocket, mut follower: Follower) {
    let mut signs = interval(SIGN_OF_LIFE);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        let message = tokio::select! {
            event = follower.next() => match event {
                Ok(event) => Message::text(json(&event)),
                Err(end) => break end,
            },
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            _ = signs.tick() => Message::Ping(Vec::new().into()),
        };
        if socket.send(message).await.is_err() {
            return;
        }
    };
    let code = match end {
        End::Behind { .. } => close_code::POLICY,
        End::Closed => close_code::AWAY,
    };
    let told = socket.send(Message::text(json(&last(&end)))).await;
    // RFC 6455, section 5.5: a reason has 123 bytes at most; the whole of it has been told.
    let reason = match end {
        End::Behind { .. } => "too slow",
        End::Closed => "the daemon is shutting down",
    };
    if told.is_ok() {
        // Whoever has gone needs no farewell.
        drop(socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await);
        // RFC 6455, section 7.1.1: the client answers, then the connection is closed. A client that answered an earlier ping to
        // nobody would fail there, and not read the reason.
        let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
        drop(timeout(FAREWELL, answered).await);
    }
}

#[cfg(test)]
mod tests;
