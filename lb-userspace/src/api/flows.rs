//! What is remembered of flows under `/v1/flows`, and a service's slots under `/v1/services/{service}/slots`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::backends::OfService;
use super::openapi::Refusals;
use super::pages::next_page;
use super::problem::{Body, BodyLimit, Parameters, Place};
use super::services::{self, OfOneService};
use super::{Answer, Shared};
use crate::config::ServiceKeys;
use crate::controller::{Change, FlowsQuery};
use crate::model::Protocol;
use crate::view::{FlowCount, FlowLookup, FlowName, FlowView, PlanView, Problem, ServiceSlots};

/// The most flows that one answer tells, and how many if nobody says.
const MOST_FLOWS: u16 = 1_000;
/// As [`MOST_FLOWS`].
const USUAL_FLOWS: u16 = 100;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(count))
        .routes(routes!(lookup))
        .routes(routes!(slots))
        .routes(routes!(disruption))
        .layer(BodyLimit::layer(services::BODY_LIMIT))
}

/// The query of `/v1/flows`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Only flows of this service.
    service: Option<String>,
    /// How many flows to tell at most; 100 if absent. There may be more where an answer tells fewer: see its header `link`.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// The place in the flow table to begin at: where the header `link` of the answer before says.
    #[param(minimum = 0)]
    offset: Option<i64>,
}

/// The flows that are remembered since their slots move. Flows come and go between two pages.
#[utoipa::path(
    get, path = "/v1/flows", tag = "flows", params(Which),
    responses((status = OK, body = [FlowView]), Refusals)
)]
async fn list(
    State(control): State<Shared>,
    uri: Uri,
    Parameters(Which { service, limit, offset }): Parameters<Which>,
) -> Result<(HeaderMap, Json<Vec<FlowView>>), Problem> {
    let limit = limit.unwrap_or(USUAL_FLOWS);
    if !(1..=MOST_FLOWS).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: {limit} is not from 1 to {MOST_FLOWS}")));
    }
    let from = u64::try_from(offset.unwrap_or_default());
    let from = from.map_err(|_| Problem::bad_request("offset: no place in the flow table is below 0"))?;
    let query = FlowsQuery { service, from, most: limit.into() };
    let page = control.flows(query).await?;
    let next = page.next.map(|next| next_page(&uri, limit.into(), next)).unwrap_or_default();
    Ok((next, Json(page.flows)))
}

/// How many flows are remembered of each backend that has any.
#[utoipa::path(
    get, path = "/v1/flows/count", tag = "flows", params(OfOneService),
    responses((status = OK, body = [FlowCount]), Refusals)
)]
async fn count(
    State(control): State<Shared>,
    Parameters(OfOneService { service }): Parameters<OfOneService>,
) -> Answer<Vec<FlowCount>> {
    Ok(Json(control.count_flows(service.as_deref()).await?))
}

/// The query of `/v1/flows/lookup`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Addresses {
    /// The transport protocol.
    protocol: Protocol,
    /// Where the flow's packets come from: `ADDRESS:PORT`, an IPv6 address in brackets.
    source: String,
    /// Where they go to, in the same way.
    vip: String,
}

/// Where a flow's packets go, and why.
#[utoipa::path(
    get, path = "/v1/flows/lookup", tag = "flows", params(Addresses),
    responses((status = OK, body = FlowLookup), Refusals)
)]
async fn lookup(
    State(control): State<Shared>,
    Parameters(Addresses { protocol, source, vip }): Parameters<Addresses>,
) -> Answer<FlowLookup> {
    let flow = FlowName::parse(protocol, &source, &vip).map_err(Problem::bad_request)?;
    Ok(Json(control.lookup(flow).await?))
}

/// Who owns the slots of a service.
#[utoipa::path(
    get, path = "/v1/services/{service}/slots", tag = "slots", params(OfService),
    responses((status = OK, body = ServiceSlots), Refusals)
)]
async fn slots(State(control): State<Shared>, Place(service): Place<String>) -> Answer<ServiceSlots> {
    Ok(Json(control.slots(&service).await?))
}

/// What it would cost to put a service in the place of the one of its name. Nothing is changed.
#[utoipa::path(
    post, path = "/v1/services/{service}/disruption", tag = "slots", params(OfService), request_body = ServiceKeys,
    responses((status = OK, body = PlanView), Refusals)
)]
async fn disruption(
    State(control): State<Shared>,
    Place(service): Place<String>,
    Body(mut keys): Body<ServiceKeys>,
) -> Answer<PlanView> {
    keys.0.insert("name".to_owned(), Value::String(service));
    Ok(Json(control.weigh(Change::SetService(services::read(&keys)?.into())).await?))
}
