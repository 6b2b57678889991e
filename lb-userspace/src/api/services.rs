//! `/v1/status` and `/v1/services`: what there is, how it is, and what it is to be.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::backends::OfService;
use super::openapi::Refusals;
use super::problem::{Body, BodyLimit, Parameters, Place};
use super::{Answer, Guarded, Shared, apply};
use crate::config::{ServiceKeys, read_service, service_keys};
use crate::controller::Change;
use crate::model::Service;
use crate::view::{Applied, CheckView, Problem, ServiceView, Stats, Status};

/// As many backends as a service can have.
pub(super) const BODY_LIMIT: usize = 8 * 1024 * 1024;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(stats))
        .routes(routes!(health))
        .routes(routes!(services, add))
        .routes(routes!(show, set, remove))
        .layer(BodyLimit::layer(BODY_LIMIT))
}

/// The daemon as a whole.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = OK, body = Status), Refusals))]
async fn status(State(control): State<Shared>) -> Answer<Status> {
    Ok(Json(control.status().await?))
}

/// What was counted, all services and interfaces together.
#[utoipa::path(get, path = "/v1/stats", tag = "status", responses((status = OK, body = Stats), Refusals))]
async fn stats(State(control): State<Shared>) -> Answer<Stats> {
    Ok(Json(Stats::from(&control.status().await?)))
}

/// One service, or all.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OfOneService {
    /// Only of this service.
    pub(super) service: Option<String>,
}

/// The health checks there are, and how the last ones ended.
#[utoipa::path(
    get, path = "/v1/health", tag = "health", params(OfOneService),
    responses((status = OK, body = [CheckView]), Refusals)
)]
async fn health(
    State(control): State<Shared>,
    Parameters(OfOneService { service }): Parameters<OfOneService>,
) -> Answer<Vec<CheckView>> {
    Ok(Json(control.checks(service.as_deref()).await?))
}

/// Every service.
#[utoipa::path(get, path = "/v1/services", tag = "services", responses((status = OK, body = [ServiceView]), Refusals))]
async fn services(State(control): State<Shared>) -> Answer<Vec<ServiceView>> {
    Ok(Json(control.status().await?.services))
}

/// Adds a service.
#[utoipa::path(
    post, path = "/v1/services", tag = "services", request_body = ServiceKeys,
    responses((status = OK, body = Applied), Refusals)
)]
async fn add(Guarded(control): Guarded, Body(keys): Body<ServiceKeys>) -> Answer<Applied> {
    apply(&control, Change::AddService(read(&keys)?.into())).await
}

/// A service as the configuration would have it.
#[utoipa::path(
    get, path = "/v1/services/{service}", tag = "services", params(OfService),
    responses((status = OK, body = ServiceKeys), Refusals)
)]
async fn show(State(control): State<Shared>, Place(service): Place<String>) -> Answer<ServiceKeys> {
    Ok(Json(service_keys(&control.service(&service).await?)))
}

/// Puts a service in the place of the one of its name; what no key says is as usual. Backends that stay keep their flows.
#[utoipa::path(
    put, path = "/v1/services/{service}", tag = "services", params(OfService), request_body = ServiceKeys,
    responses((status = OK, body = Applied), Refusals)
)]
async fn set(
    Guarded(control): Guarded,
    Place(service): Place<String>,
    Body(mut keys): Body<ServiceKeys>,
) -> Answer<Applied> {
    // The name in the path is the service's, whatever the body says.
    keys.0.insert("name".to_owned(), Value::String(service));
    apply(&control, Change::SetService(read(&keys)?.into())).await
}

/// Removes a service with all its backends and the flows that they have.
#[utoipa::path(
    delete, path = "/v1/services/{service}", tag = "services", params(OfService),
    responses((status = OK, body = Applied), Refusals)
)]
async fn remove(Guarded(control): Guarded, Place(service): Place<String>) -> Answer<Applied> {
    apply(&control, Change::RemoveService { service }).await
}

pub(super) fn read(keys: &ServiceKeys) -> Result<Service, Problem> {
    read_service(keys).map_err(|sentences| Problem::bad_request(sentences.join("; ")))
}
