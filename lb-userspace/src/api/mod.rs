//! The daemon's HTTP API on a Unix socket: JSON in and out, problems as RFC 9457 has them, described at `/v1/openapi.json`.

#![expect(unused_qualifications, reason = "the macros that describe handlers write them")]

mod backends;
mod config;
mod control;
#[cfg(test)]
pub(crate) mod double;
mod limits;
mod lists;
mod openapi;
mod problem;
mod services;
mod socket;

use std::future::{Future, IntoFuture as _};
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::serve::Listener;
use axum::{Json, Router};
use tokio::sync::oneshot;
use utoipa_axum::router::OpenApiRouter;

pub use self::control::{Control, Shared};
pub(crate) use self::limits::{MOST_SOURCES, USUAL_SOURCES};
pub use self::socket::{ApiSocket, BindError, SocketGuard, bind};

use self::problem::{unknown_path, wrong_method};
use crate::controller::Change;
use crate::model::Endpoint;
use crate::view::{Applied, Problem};

/// No request but those of whole lists needs more.
const BODY_LIMIT: usize = 64 * 1024;

/// What requests under way get when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// The media type of problems.
const PROBLEM: &str = "application/problem+json";

type Answer<T> = Result<Json<T>, Problem>;

/// The routes of `/v1`.
pub fn router(control: Shared) -> Router {
    let routes = OpenApiRouter::with_openapi(openapi::document())
        .merge(services::routes())
        .merge(backends::routes())
        .merge(limits::routes())
        .merge(config::routes())
        .merge(lists::routes());
    openapi::describe(routes)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(control)
}

/// Serves the API until `shutdown` completes; then the socket is gone.
pub async fn serve(socket: ApiSocket, control: Shared, shutdown: impl Future<Output = ()> + Send + 'static) {
    let ApiSocket { listener, guard } = socket;
    serve_http(listener, router(control), shutdown).await;
    drop(guard);
}

/// Serves `router` until `shutdown` completes and the requests under way are answered or [`GRACE`] is over.
pub(crate) async fn serve_http<L>(
    listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) where
    L: Listener<Addr: std::fmt::Debug>,
{
    let (told, stopping) = oneshot::channel::<()>();
    let graceful = async move {
        shutdown.await;
        drop(told);
    };
    // A client that never ends its request must not keep the daemon from stopping.
    let impatience = async {
        drop(stopping.await);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        // axum retries what fails and never returns an error.
        _ = axum::serve(listener, router).with_graceful_shutdown(graceful).into_future() => {}
        () = impatience => tracing::warn!("clients still connected were cut off"),
    }
}

async fn apply(control: &Shared, change: Change) -> Answer<Applied> {
    Ok(Json(control.change(change).await?))
}

fn parse_endpoint(address: &str) -> Result<Endpoint, Problem> {
    address.parse().map_err(|error| Problem::bad_request(format!("backend address {error}")))
}

#[cfg(test)]
mod tests;
