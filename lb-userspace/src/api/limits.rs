//! Limiters: those of one service under `/v1/services/{service}/limits`, all of them and those of all services under
//! `/v1/limits`; what is proposed under `/v1/services/{service}/suggestions` and `/v1/suggestions`; who is over them under
//! `/v1/limited`.

use axum::extract::State;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;

use super::problem::{Body, Parameters, Place};
use super::{Answer, Control, apply};
use crate::config::{LimitKeys, Scalar, read_limit};
use crate::controller::{Change, ChangeError, SuggestionQuery};
use crate::suggestion::Quantile;
use crate::view::{Applied, LimitView, LimitedView, Problem, Suggestion};

/// The most sources that can be asked for, and how many are told if nobody says.
pub(crate) const MOST_SOURCES: u16 = 1024;
/// As [`MOST_SOURCES`].
pub(crate) const USUAL_SOURCES: u16 = 20;

pub(super) fn routes<C: Control>() -> Router<C> {
    let shared = put(set_shared::<C>).delete(remove_shared::<C>).get(show_shared::<C>);
    let own = put(set_own::<C>).delete(remove_own::<C>).get(show_own::<C>);
    Router::new()
        .route("/v1/limits", get(list_all::<C>))
        .route("/v1/limited", get(limited::<C>))
        .route("/v1/limits/{name}", shared)
        .route("/v1/services/{service}/limits", get(list_of_service::<C>))
        .route("/v1/services/{service}/limits/{name}", own)
        .route("/v1/suggestions", get(suggest_shared::<C>))
        .route("/v1/services/{service}/suggestions", get(suggest::<C>))
}

async fn list_all<C: Control>(State(control): State<C>) -> Answer<Vec<LimitView>> {
    Ok(Json(control.limits(None).await?))
}

async fn list_of_service<C: Control>(
    State(control): State<C>,
    Place(service): Place<String>,
) -> Answer<Vec<LimitView>> {
    Ok(Json(control.limits(Some(&service)).await?))
}

/// The query of `/v1/limited`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    service: Option<String>,
    count: Option<u16>,
}

async fn limited<C: Control>(
    State(control): State<C>,
    Parameters(Which { service, count }): Parameters<Which>,
) -> Answer<LimitedView> {
    let count = count.unwrap_or(USUAL_SOURCES);
    if !(1..=MOST_SOURCES).contains(&count) {
        return Err(Problem::bad_request(format!("count: {count} is not from 1 to {MOST_SOURCES}")));
    }
    Ok(Json(control.limited(service.as_deref(), count.into()).await?))
}

async fn show_shared<C: Control>(State(control): State<C>, Place(name): Place<String>) -> Answer<LimitView> {
    show(&control, None, &name).await
}

async fn show_own<C: Control>(
    State(control): State<C>,
    Place((service, name)): Place<(String, String)>,
) -> Answer<LimitView> {
    show(&control, Some(&service), &name).await
}

async fn show<C: Control>(control: &C, service: Option<&str>, name: &str) -> Answer<LimitView> {
    let limits = control.limits(service).await?;
    let found = limits.into_iter().find(|limit| limit.service.as_deref() == service && limit.name == name);
    let list = format!("lb limit list {}", service.unwrap_or_default());
    let missing =
        || ChangeError::NotFound(format!("there is no limiter {name:?}; see `{}`", list.trim_end()));
    Ok(Json(found.ok_or_else(missing)?))
}

/// What may stand behind the path of suggestions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuggestionParameters {
    limiter: Option<String>,
    quantile: Option<String>,
}

async fn suggest_shared<C: Control>(
    State(control): State<C>,
    Parameters(parameters): Parameters<SuggestionParameters>,
) -> Answer<Vec<Suggestion>> {
    suggestions(&control, None, parameters).await
}

async fn suggest<C: Control>(
    State(control): State<C>,
    Place(service): Place<String>,
    Parameters(parameters): Parameters<SuggestionParameters>,
) -> Answer<Vec<Suggestion>> {
    suggestions(&control, Some(service), parameters).await
}

async fn suggestions<C: Control>(
    control: &C,
    service: Option<String>,
    SuggestionParameters { limiter, quantile }: SuggestionParameters,
) -> Answer<Vec<Suggestion>> {
    let quantile = quantile.map_or(Ok(Quantile::default()), |text| text.parse());
    let quantile = quantile.map_err(|error| Problem::bad_request(format!("quantile: {error}")))?;
    Ok(Json(control.suggestions(SuggestionQuery { service, limiter, quantile }).await?))
}

async fn set_shared<C: Control>(
    State(control): State<C>,
    Place(name): Place<String>,
    Body(keys): Body<LimitKeys>,
) -> Answer<Applied> {
    set(&control, None, name, keys).await
}

async fn set_own<C: Control>(
    State(control): State<C>,
    Place((service, name)): Place<(String, String)>,
    Body(keys): Body<LimitKeys>,
) -> Answer<Applied> {
    set(&control, Some(service), name, keys).await
}

/// The name in the path is the limiter's, whatever the body says.
async fn set<C: Control>(
    control: &C,
    service: Option<String>,
    name: String,
    mut keys: LimitKeys,
) -> Answer<Applied> {
    keys.insert("name".to_owned(), Scalar::Text(name));
    let limit = read_limit(&keys).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Problem::bad_request(mistakes.join("; "))
    })?;
    apply(control, Change::SetLimit { service, limit }).await
}

async fn remove_shared<C: Control>(State(control): State<C>, Place(name): Place<String>) -> Answer<Applied> {
    apply(&control, Change::RemoveLimit { service: None, name }).await
}

async fn remove_own<C: Control>(
    State(control): State<C>,
    Place((service, name)): Place<(String, String)>,
) -> Answer<Applied> {
    apply(&control, Change::RemoveLimit { service: Some(service), name }).await
}
