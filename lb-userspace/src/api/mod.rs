//! The daemon's HTTP API on a Unix socket: JSON in and out, problems as RFC 9457 has them, described at `/v1/openapi.json`.

#![expect(unused_qualifications, reason = "the macros that describe handlers write them")]

mod backends;
mod config;
mod connections;
mod control;
mod credentials;
#[cfg(test)]
pub(crate) mod double;
mod events;
mod flows;
mod gate;
mod guarded;
mod limits;
mod lists;
mod network;
mod openapi;
mod pages;
mod problem;
mod roles;
mod services;
mod socket;

use std::future::Future;
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::{Json, Router};
use utoipa_axum::router::OpenApiRouter;

pub(crate) use self::connections::serve_http;
pub use self::control::{Control, Shared};
pub use self::credentials::CredentialsError;
pub(crate) use self::gate::PRODUCT;
pub(crate) use self::limits::{MOST_SOURCES, USUAL_SOURCES};
pub use self::network::{Network, NetworkError};
pub use self::socket::{ApiSocket, BindError, SocketGuard, bind};

use self::credentials::Credentials;
use self::gate::{Gate, accompany};
use self::guarded::{Guarded, tell_generation};
use self::problem::{BodyLimit, unknown_path, wrong_method};
use crate::controller::Change;
use crate::model::Endpoint;
use crate::view::{Applied, Problem};

/// No request but those of whole lists needs more.
const BODY_LIMIT: usize = 64 * 1024;

/// The media type of problems.
const PROBLEM: &str = "application/problem+json";

type Answer<T> = Result<Json<T>, Problem>;

/// The routes of `/v1`, for clients who need no credentials or have to prove these.
fn router(control: Shared, credentials: Option<Arc<Credentials>>) -> Router {
    let routes = OpenApiRouter::with_openapi(openapi::document())
        .merge(services::routes())
        .merge(backends::routes())
        .merge(limits::routes())
        .merge(config::routes())
        .merge(lists::routes())
        .merge(flows::routes())
        .merge(events::routes());
    openapi::describe(routes)
        .layer(from_fn_with_state(Shared::clone(&control), tell_generation))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(BodyLimit::layer(BODY_LIMIT))
        .layer(from_fn_with_state(Gate::new(credentials), accompany))
        .with_state(control)
}

/// Serves the API until `shutdown` completes; then the socket is gone.
pub async fn serve(socket: ApiSocket, control: Shared, shutdown: impl Future<Output = ()> + Send + 'static) {
    let ApiSocket { listener, guard } = socket;
    serve_http(listener, router(control, None), shutdown).await;
    drop(guard);
}

async fn apply(control: &Shared, change: Change) -> Answer<Applied> {
    Ok(Json(control.change(change).await?))
}

fn parse_endpoint(address: &str) -> Result<Endpoint, Problem> {
    address.parse().map_err(|error| Problem::bad_request(format!("backend address {error}")))
}

#[cfg(test)]
mod tests;
