//! The daemon's HTTP API on a Unix socket: JSON in and out, problems as RFC 9457 has them.

mod config;
mod control;
#[cfg(test)]
pub(crate) mod double;
mod limits;
mod lists;
mod problem;
mod socket;
mod states;

use std::future::{Future, IntoFuture as _};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, patch};
use axum::serve::Listener;
use axum::{Json, Router};
use tokio::sync::oneshot;

pub use self::control::Control;
pub(crate) use self::limits::{MOST_SOURCES, USUAL_SOURCES};
pub use self::socket::{ApiSocket, BindError, SocketGuard, bind};

use self::problem::{Body, Place, unknown_path, wrong_method};
use crate::controller::Change;
use crate::model::{AdminState, Backend, Endpoint, ListName};
use crate::view::{AddBackend, Applied, BackendView, Problem, ServiceView, SetBackend, Status};

/// No request but those of whole lists needs more.
const BODY_LIMIT: usize = 64 * 1024;

/// What requests under way get when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

type Answer<T> = Result<Json<T>, Problem>;

/// The routes of `/v1`.
pub fn router<C: Control>(control: C) -> Router {
    let backend = "/v1/services/{service}/backends/{address}";
    Router::new()
        .route("/v1/status", get(status::<C>))
        .route("/v1/services", get(services::<C>))
        .route("/v1/services/{service}/backends", get(backends::<C>).post(add_backend::<C>))
        .route(backend, patch(set_backend::<C>).delete(remove_backend::<C>))
        .merge(states::routes())
        .merge(limits::routes())
        .merge(config::routes())
        .route("/v1/deny", lists::routes(ListName::Deny))
        .route("/v1/allow", lists::routes(ListName::Allow))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(control)
}

/// Serves the API until `shutdown` completes; then the socket is gone.
pub async fn serve<C: Control>(
    socket: ApiSocket,
    control: C,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
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

async fn status<C: Control>(State(control): State<C>) -> Answer<Status> {
    Ok(Json(control.status().await?))
}

async fn services<C: Control>(State(control): State<C>) -> Answer<Vec<ServiceView>> {
    Ok(Json(control.status().await?.services))
}

async fn backends<C: Control>(
    State(control): State<C>,
    Place(service): Place<String>,
) -> Answer<Vec<BackendView>> {
    Ok(Json(control.backends(&service).await?))
}

async fn add_backend<C: Control>(
    State(control): State<C>,
    Place(service): Place<String>,
    Body(body): Body<AddBackend>,
) -> Answer<Applied> {
    let endpoint = parse_endpoint(&body.address)?;
    let backend = Backend { endpoint, weight: body.weight, admin: AdminState::Ready };
    apply(&control, Change::AddBackend { service, backend }).await
}

async fn set_backend<C: Control>(
    State(control): State<C>,
    Place((service, address)): Place<(String, String)>,
    Body(SetBackend { weight }): Body<SetBackend>,
) -> Answer<Applied> {
    let endpoint = parse_endpoint(&address)?;
    apply(&control, Change::SetWeight { service, endpoint, weight }).await
}

async fn remove_backend<C: Control>(
    State(control): State<C>,
    Place((service, address)): Place<(String, String)>,
) -> Answer<Applied> {
    let endpoint = parse_endpoint(&address)?;
    apply(&control, Change::RemoveBackend { service, endpoint }).await
}

async fn apply<C: Control>(control: &C, change: Change) -> Answer<Applied> {
    Ok(Json(control.change(change).await?))
}

fn parse_endpoint(address: &str) -> Result<Endpoint, Problem> {
    address.parse().map_err(|error| Problem::bad_request(format!("backend address {error}")))
}

#[cfg(test)]
mod tests;
