//! Limiters: those of one service under `/v1/services/{service}/limits`, all of them and those of all services under
//! `/v1/limits`; what is proposed under `/v1/services/{service}/suggestions` and `/v1/suggestions`; who is over them under
//! `/v1/limited`.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::backends::OfService;
use super::openapi::Refusals;
use super::problem::{Body, Parameters, Place};
use super::{Answer, Guarded, Shared, apply};
use crate::config::{LimitKeys, Scalar, read_limit};
use crate::controller::{Change, ChangeError, SuggestionQuery};
use crate::suggestion::Quantile;
use crate::view::{Applied, LimitView, LimitedView, Problem, Suggestion};

/// The most sources that can be asked for, and how many are told if nobody says.
pub(crate) const MOST_SOURCES: u16 = 1024;
/// As [`MOST_SOURCES`].
pub(crate) const USUAL_SOURCES: u16 = 20;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list_all))
        .routes(routes!(limited))
        .routes(routes!(show_shared, set_shared, remove_shared))
        .routes(routes!(list_of_service))
        .routes(routes!(show_own, set_own, remove_own))
        .routes(routes!(suggest_shared))
        .routes(routes!(suggest))
}

/// A limiter of all services.
#[derive(IntoParams)]
#[into_params(names("name"), parameter_in = Path)]
#[expect(dead_code, reason = "it describes the parameter, which is read as text")]
struct SharedLimiter(
    /// The limiter's name.
    String,
);

/// A limiter of one service.
#[derive(IntoParams)]
#[into_params(names("service", "name"), parameter_in = Path)]
#[expect(dead_code, reason = "it describes the parameters, which are read as texts")]
struct OwnLimiter(
    /// The service's name.
    String,
    /// The limiter's name.
    String,
);

/// The limiters of all services and of each.
#[utoipa::path(
    get, path = "/v1/limits", tag = "limits",
    responses((status = OK, body = [LimitView]), Refusals)
)]
async fn list_all(State(control): State<Shared>) -> Answer<Vec<LimitView>> {
    Ok(Json(control.limits(None).await?))
}

/// The limiters that packets of one service meet.
#[utoipa::path(
    get, path = "/v1/services/{service}/limits", tag = "limits", params(OfService),
    responses((status = OK, body = [LimitView]), Refusals)
)]
async fn list_of_service(
    State(control): State<Shared>,
    Place(service): Place<String>,
) -> Answer<Vec<LimitView>> {
    Ok(Json(control.limits(Some(&service)).await?))
}

/// The query of `/v1/limited`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Only at limiters that packets of this service meet.
    service: Option<String>,
    /// How many sources to tell at most; 20 if absent.
    #[param(minimum = 1, maximum = 1024)]
    count: Option<u16>,
}

/// Who is over limits.
#[utoipa::path(
    get, path = "/v1/limited", tag = "limits", params(Which),
    responses((status = OK, body = LimitedView), Refusals)
)]
async fn limited(
    State(control): State<Shared>,
    Parameters(Which { service, count }): Parameters<Which>,
) -> Answer<LimitedView> {
    let count = count.unwrap_or(USUAL_SOURCES);
    if !(1..=MOST_SOURCES).contains(&count) {
        return Err(Problem::bad_request(format!("count: {count} is not from 1 to {MOST_SOURCES}")));
    }
    Ok(Json(control.limited(service.as_deref(), count.into()).await?))
}

/// A limiter that every service has.
#[utoipa::path(
    get, path = "/v1/limits/{name}", tag = "limits", params(SharedLimiter),
    responses((status = OK, body = LimitView), Refusals)
)]
async fn show_shared(State(control): State<Shared>, Place(name): Place<String>) -> Answer<LimitView> {
    show(&control, None, &name).await
}

/// A limiter of one service.
#[utoipa::path(
    get, path = "/v1/services/{service}/limits/{name}", tag = "limits", params(OwnLimiter),
    responses((status = OK, body = LimitView), Refusals)
)]
async fn show_own(
    State(control): State<Shared>,
    Place((service, name)): Place<(String, String)>,
) -> Answer<LimitView> {
    show(&control, Some(&service), &name).await
}

async fn show(control: &Shared, service: Option<&str>, name: &str) -> Answer<LimitView> {
    let limits = control.limits(service).await?;
    let found = limits.into_iter().find(|limit| limit.service.as_deref() == service && limit.name == name);
    let list = format!("lb limit list {}", service.unwrap_or_default());
    let missing =
        || ChangeError::NotFound(format!("there is no limiter {name:?}; see `{}`", list.trim_end()));
    Ok(Json(found.ok_or_else(missing)?))
}

/// What may stand behind the path of suggestions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SuggestionParameters {
    /// The one limiter that is asked about.
    limiter: Option<String>,
    /// Of how many sources of a hundred the proposed limiter is to limit none: from 50 to 100, else 99.9.
    quantile: Option<String>,
}

/// What limiters of all services propose that only count.
#[utoipa::path(
    get, path = "/v1/suggestions", tag = "limits", params(SuggestionParameters),
    responses((status = OK, body = [Suggestion]), Refusals)
)]
async fn suggest_shared(
    State(control): State<Shared>,
    Parameters(parameters): Parameters<SuggestionParameters>,
) -> Answer<Vec<Suggestion>> {
    suggestions(&control, None, parameters).await
}

/// What limiters propose that only count, of those that packets of one service meet.
#[utoipa::path(
    get, path = "/v1/services/{service}/suggestions", tag = "limits", params(OfService, SuggestionParameters),
    responses((status = OK, body = [Suggestion]), Refusals)
)]
async fn suggest(
    State(control): State<Shared>,
    Place(service): Place<String>,
    Parameters(parameters): Parameters<SuggestionParameters>,
) -> Answer<Vec<Suggestion>> {
    suggestions(&control, Some(service), parameters).await
}

async fn suggestions(
    control: &Shared,
    service: Option<String>,
    SuggestionParameters { limiter, quantile }: SuggestionParameters,
) -> Answer<Vec<Suggestion>> {
    let quantile = quantile.map_or(Ok(Quantile::default()), |text| text.parse());
    let quantile = quantile.map_err(|error| Problem::bad_request(format!("quantile: {error}")))?;
    Ok(Json(control.suggestions(SuggestionQuery { service, limiter, quantile }).await?))
}

/// Adds or replaces a limiter that every service has.
#[utoipa::path(
    put, path = "/v1/limits/{name}", tag = "limits", params(SharedLimiter),
    request_body = LimitKeys, responses((status = OK, body = Applied), Refusals)
)]
async fn set_shared(
    Guarded(control): Guarded,
    Place(name): Place<String>,
    Body(keys): Body<LimitKeys>,
) -> Answer<Applied> {
    set(&control, None, name, keys).await
}

/// Adds or replaces a limiter of one service.
#[utoipa::path(
    put, path = "/v1/services/{service}/limits/{name}", tag = "limits", params(OwnLimiter),
    request_body = LimitKeys, responses((status = OK, body = Applied), Refusals)
)]
async fn set_own(
    Guarded(control): Guarded,
    Place((service, name)): Place<(String, String)>,
    Body(keys): Body<LimitKeys>,
) -> Answer<Applied> {
    set(&control, Some(service), name, keys).await
}

/// The name in the path is the limiter's, whatever the body says.
async fn set(
    control: &Shared,
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

/// Removes a limiter that every service has.
#[utoipa::path(
    delete, path = "/v1/limits/{name}", tag = "limits", params(SharedLimiter),
    responses((status = OK, body = Applied), Refusals)
)]
async fn remove_shared(Guarded(control): Guarded, Place(name): Place<String>) -> Answer<Applied> {
    apply(&control, Change::RemoveLimit { service: None, name }).await
}

/// Removes a limiter of one service.
#[utoipa::path(
    delete, path = "/v1/services/{service}/limits/{name}", tag = "limits", params(OwnLimiter),
    responses((status = OK, body = Applied), Refusals)
)]
async fn remove_own(
    Guarded(control): Guarded,
    Place((service, name)): Place<(String, String)>,
) -> Answer<Applied> {
    apply(&control, Change::RemoveLimit { service: Some(service), name }).await
}
