//! `/v1/config`: the configuration as TOML, what would change it, and the generations before it.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::StringRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Refusals;
use super::problem::{Body, BodyLimit, Parameters};
use super::{Answer, Guarded, Shared};
use crate::view::{ApplyQuery, ConfigApplied, ConfigDiff, GenerationView, Problem, Rollback};

/// A thousand services with a hundred backends each take 5 MiB.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(show, apply))
        .routes(routes!(diff))
        .routes(routes!(reload))
        .routes(routes!(history))
        .routes(routes!(roll_back))
        .routes(routes!(confirm))
        .layer(BodyLimit::layer(BODY_LIMIT))
}

/// The configuration that is in force, as one file.
#[utoipa::path(
    get, path = "/v1/config", tag = "config",
    responses((status = OK, body = String, content_type = "application/toml"), Refusals)
)]
async fn show(State(control): State<Shared>) -> Result<Response, Problem> {
    Ok(([(CONTENT_TYPE, "application/toml")], control.config().await?).into_response())
}

/// Puts a configuration in the place of the present one, whole or not at all.
#[utoipa::path(
    put, path = "/v1/config", tag = "config", params(ApplyQuery),
    request_body(content = String, content_type = "application/toml"), responses((status = OK, body = ConfigApplied), Refusals)
)]
async fn apply(
    Guarded(control): Guarded,
    Parameters(query): Parameters<ApplyQuery>,
    Text(text): Text,
) -> Answer<ConfigApplied> {
    if text.is_empty() {
        // Whoever forgets the body does not want every service removed.
        return Err(Problem::bad_request("there is no configuration in the body"));
    }
    Ok(Json(control.apply_config(Some(text), within(query)?).await?))
}

/// What a configuration would change, and at what cost; what the daemon's files would change if the body is empty.
#[utoipa::path(
    post, path = "/v1/config/diff", tag = "config",
    request_body(content = Option<String>, content_type = "application/toml"), responses((status = OK, body = ConfigDiff), Refusals)
)]
async fn diff(Guarded(control): Guarded, Text(text): Text) -> Answer<ConfigDiff> {
    Ok(Json(control.diff_config(Some(text).filter(|text| !text.is_empty())).await?))
}

/// Puts what the daemon's files say in force.
#[utoipa::path(
    post, path = "/v1/config/reload", tag = "config", params(ApplyQuery),
    responses((status = OK, body = ConfigApplied), Refusals)
)]
async fn reload(
    Guarded(control): Guarded,
    Parameters(query): Parameters<ApplyQuery>,
) -> Answer<ConfigApplied> {
    Ok(Json(control.apply_config(None, within(query)?).await?))
}

/// The generations that are kept, the oldest first.
#[utoipa::path(
    get, path = "/v1/config/history", tag = "config",
    responses((status = OK, body = [GenerationView]), Refusals)
)]
async fn history(State(control): State<Shared>) -> Answer<Vec<GenerationView>> {
    Ok(Json(control.history().await?))
}

/// Goes back to a generation.
#[utoipa::path(
    post, path = "/v1/config/rollback", tag = "config",
    request_body = Rollback, responses((status = OK, body = ConfigApplied), Refusals)
)]
async fn roll_back(
    Guarded(control): Guarded,
    Body(Rollback { generation }): Body<Rollback>,
) -> Answer<ConfigApplied> {
    Ok(Json(control.roll_back(generation).await?))
}

/// Keeps a generation that waits to be confirmed.
#[utoipa::path(
    post, path = "/v1/config/confirm", tag = "config",
    responses((status = OK, body = ConfigApplied), Refusals)
)]
async fn confirm(Guarded(control): Guarded) -> Answer<ConfigApplied> {
    Ok(Json(control.confirm().await?))
}

/// The longest that a change may wait to be confirmed, in seconds: a week.
const LONGEST_WAIT: u64 = 7 * 24 * 3600;

fn within(query: ApplyQuery) -> Result<Option<Duration>, Problem> {
    match query.confirm_within {
        Some(seconds) if !(1..=LONGEST_WAIT).contains(&seconds) => Err(Problem::bad_request(format!(
            "confirm_within: {seconds} is not from 1 to {LONGEST_WAIT} seconds"
        ))),
        within => Ok(within.map(Duration::from_secs)),
    }
}

/// A body of text.
struct Text(String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limit = BodyLimit::of(&request);
        let text = String::from_request(request, state).await;
        text.map(Self)
            .map_err(|error: StringRejection| BodyLimit::refusal(limit, error.status(), error.body_text()))
    }
}
