//! `/v1/services/{service}/backends`: who serves, by what share, and whether it is to.

use axum::Json;
use axum::extract::State;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Refusals;
use super::problem::{Body, OptionalBody, Place};
use super::{Answer, Guarded, Shared, apply, parse_endpoint};
use crate::config::parse_drain_timeout;
use crate::controller::Change;
use crate::model::{AdminState, Backend};
use crate::view::{AddBackend, Applied, BackendView, DrainBackend, Problem, SetBackend};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(set, remove))
        .routes(routes!(ready))
        .routes(routes!(drain))
        .routes(routes!(retire))
}

/// The backends of a service.
#[derive(IntoParams)]
#[into_params(names("service"), parameter_in = Path)]
#[expect(dead_code, reason = "it describes the parameter, which is read as text")]
pub(super) struct OfService(
    /// The service's name.
    String,
);

/// One backend of a service.
#[derive(IntoParams)]
#[into_params(names("service", "address"), parameter_in = Path)]
#[expect(dead_code, reason = "it describes the parameters, which are read as texts")]
struct OneBackend(
    /// The service's name.
    String,
    /// `ADDRESS:PORT`.
    String,
);

/// Service and address of a backend.
type At = Place<(String, String)>;

/// The backends of one service.
#[utoipa::path(
    get, path = "/v1/services/{service}/backends", tag = "backends", params(OfService),
    responses((status = OK, body = [BackendView]), Refusals)
)]
async fn list(State(control): State<Shared>, Place(service): Place<String>) -> Answer<Vec<BackendView>> {
    Ok(Json(control.backends(&service).await?))
}

/// Adds a backend.
#[utoipa::path(
    post, path = "/v1/services/{service}/backends", tag = "backends", params(OfService),
    request_body = AddBackend, responses((status = OK, body = Applied), Refusals)
)]
async fn add(
    Guarded(control): Guarded,
    Place(service): Place<String>,
    Body(body): Body<AddBackend>,
) -> Answer<Applied> {
    let endpoint = parse_endpoint(&body.address)?;
    let backend = Backend { endpoint, weight: body.weight, admin: AdminState::Ready };
    apply(&control, Change::AddBackend { service, backend }).await
}

/// Changes a backend's weight.
#[utoipa::path(
    patch, path = "/v1/services/{service}/backends/{address}", tag = "backends", params(OneBackend),
    request_body = SetBackend, responses((status = OK, body = Applied), Refusals)
)]
async fn set(
    Guarded(control): Guarded,
    Place((service, address)): At,
    Body(SetBackend { weight }): Body<SetBackend>,
) -> Answer<Applied> {
    let endpoint = parse_endpoint(&address)?;
    apply(&control, Change::SetWeight { service, endpoint, weight }).await
}

/// Removes a backend; its flows go to others.
#[utoipa::path(
    delete, path = "/v1/services/{service}/backends/{address}", tag = "backends", params(OneBackend),
    responses((status = OK, body = Applied), Refusals)
)]
async fn remove(Guarded(control): Guarded, Place((service, address)): At) -> Answer<Applied> {
    let endpoint = parse_endpoint(&address)?;
    apply(&control, Change::RemoveBackend { service, endpoint }).await
}

/// Puts a backend to work.
#[utoipa::path(
    post, path = "/v1/services/{service}/backends/{address}/ready", tag = "backends", params(OneBackend),
    responses((status = OK, body = Applied), Refusals)
)]
async fn ready(Guarded(control): Guarded, backend: At) -> Answer<Applied> {
    ask(&control, backend, AdminState::Ready).await
}

/// Takes a backend out of service at once.
#[utoipa::path(
    post, path = "/v1/services/{service}/backends/{address}/maintenance", tag = "backends", params(OneBackend),
    responses((status = OK, body = Applied), Refusals)
)]
async fn retire(Guarded(control): Guarded, backend: At) -> Answer<Applied> {
    ask(&control, backend, AdminState::Maintenance).await
}

/// Stops new flows to a backend; those there are stay until the time-out ends.
#[utoipa::path(
    post, path = "/v1/services/{service}/backends/{address}/drain", tag = "backends", params(OneBackend),
    request_body = Option<DrainBackend>, responses((status = OK, body = Applied), Refusals)
)]
async fn drain(
    Guarded(control): Guarded,
    backend: At,
    OptionalBody(DrainBackend { timeout }): OptionalBody<DrainBackend>,
) -> Answer<Applied> {
    let timeout = timeout.map(|text| parse_drain_timeout(&text)).transpose();
    let timeout = timeout.map_err(|error| Problem::bad_request(format!("timeout: {error}")))?;
    ask(&control, backend, AdminState::Drain { timeout }).await
}

async fn ask(control: &Shared, Place((service, address)): At, state: AdminState) -> Answer<Applied> {
    let endpoint = parse_endpoint(&address)?;
    apply(control, Change::SetState { service, endpoint, state }).await
}
