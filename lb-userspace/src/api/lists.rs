//! `/v1/deny` and `/v1/allow`: one list each.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Refusals;
use super::problem::{Body, BodyLimit, nothing_at};
use super::{Answer, Guarded, Shared};
use crate::controller::{ListAction, ListChange};
use crate::model::{ListName, PrefixError};
use crate::view::{Applied, PrefixList, Problem};

/// As many prefixes as there is room for, each as long as can be.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(show, add, replace, remove)).layer(BodyLimit::layer(BODY_LIMIT))
}

/// One of the lists.
#[derive(IntoParams, Deserialize)]
#[into_params(parameter_in = Path)]
struct OneList {
    /// Sources whose packets are dropped, or sources that are never limited.
    #[param(inline)]
    list: ListName,
}

/// The prefixes on a list.
#[utoipa::path(
    get, path = "/v1/{list}", tag = "lists", params(OneList),
    responses((status = OK, body = PrefixList), Refusals)
)]
async fn show(State(control): State<Shared>, OneList { list }: OneList) -> Answer<PrefixList> {
    Ok(Json(control.list(list).await?))
}

/// Adds prefixes to a list.
#[utoipa::path(
    post, path = "/v1/{list}", tag = "lists", params(OneList), request_body = PrefixList,
    responses((status = OK, body = Applied), Refusals)
)]
async fn add(
    Guarded(control): Guarded,
    OneList { list }: OneList,
    Body(body): Body<PrefixList>,
) -> Answer<Applied> {
    change(&control, list, ListAction::Add, &body).await
}

/// Puts other prefixes in the place of all that are on a list, in one step.
#[utoipa::path(
    put, path = "/v1/{list}", tag = "lists", params(OneList), request_body = PrefixList,
    responses((status = OK, body = Applied), Refusals)
)]
async fn replace(
    Guarded(control): Guarded,
    OneList { list }: OneList,
    Body(body): Body<PrefixList>,
) -> Answer<Applied> {
    change(&control, list, ListAction::Replace, &body).await
}

/// Takes prefixes off a list.
#[utoipa::path(
    delete, path = "/v1/{list}", tag = "lists", params(OneList), request_body = PrefixList,
    responses((status = OK, body = Applied), Refusals)
)]
async fn remove(
    Guarded(control): Guarded,
    OneList { list }: OneList,
    Body(body): Body<PrefixList>,
) -> Answer<Applied> {
    change(&control, list, ListAction::Remove, &body).await
}

/// A path of one segment is that of a list, or of nothing.
impl<S: Send + Sync> FromRequestParts<S> for OneList {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(list)| list).map_err(|_| nothing_at(&parts.uri))
    }
}

async fn change(control: &Shared, list: ListName, action: ListAction, body: &PrefixList) -> Answer<Applied> {
    let prefixes = body.prefixes.iter().map(|text| text.parse()).collect::<Result<_, PrefixError>>();
    let prefixes = prefixes.map_err(|error| Problem::bad_request(format!("{list} prefix {error}")))?;
    Ok(Json(control.change_list(ListChange { list, action, prefixes }).await?))
}
