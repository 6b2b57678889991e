//! `/v1/status` and `/v1/services`: what there is, and how it is.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Refusals;
use super::{Answer, Shared};
use crate::view::{ServiceView, Status};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(services))
}

/// The daemon as a whole.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = OK, body = Status), Refusals))]
async fn status(State(control): State<Shared>) -> Answer<Status> {
    Ok(Json(control.status().await?))
}

/// Every service.
#[utoipa::path(get, path = "/v1/services", tag = "services", responses((status = OK, body = [ServiceView]), Refusals))]
async fn services(State(control): State<Shared>) -> Answer<Vec<ServiceView>> {
    Ok(Json(control.status().await?.services))
}
