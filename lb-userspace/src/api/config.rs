//! `/v1/config`: the configuration as TOML, what would change it, and the generations before it.

use std::time::Duration;

use axum::extract::rejection::{QueryRejection, StringRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::problem::Body;
use super::{Answer, Control};
use crate::view::{ApplyQuery, ConfigApplied, ConfigDiff, GenerationView, Problem, Rollback};

/// A thousand services with a hundred backends each take 5 MiB.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

pub(super) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/v1/config", get(show::<C>).put(apply::<C>))
        .route("/v1/config/diff", post(diff::<C>))
        .route("/v1/config/reload", post(reload::<C>))
        .route("/v1/config/history", get(history::<C>))
        .route("/v1/config/rollback", post(roll_back::<C>))
        .route("/v1/config/confirm", post(confirm::<C>))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn show<C: Control>(State(control): State<C>) -> Result<Response, Problem> {
    Ok(([(CONTENT_TYPE, "application/toml")], control.config().await?).into_response())
}

async fn apply<C: Control>(
    State(control): State<C>,
    Asked(query): Asked,
    Text(text): Text,
) -> Answer<ConfigApplied> {
    Ok(Json(control.apply_config(Some(text), within(query)).await?))
}

/// An empty body stands for the files.
async fn diff<C: Control>(State(control): State<C>, Text(text): Text) -> Answer<ConfigDiff> {
    Ok(Json(control.diff_config(Some(text).filter(|text| !text.is_empty())).await?))
}

async fn reload<C: Control>(State(control): State<C>, Asked(query): Asked) -> Answer<ConfigApplied> {
    Ok(Json(control.apply_config(None, within(query)).await?))
}

async fn history<C: Control>(State(control): State<C>) -> Answer<Vec<GenerationView>> {
    Ok(Json(control.history().await?))
}

async fn roll_back<C: Control>(
    State(control): State<C>,
    Body(Rollback { generation }): Body<Rollback>,
) -> Answer<ConfigApplied> {
    Ok(Json(control.roll_back(generation).await?))
}

async fn confirm<C: Control>(State(control): State<C>) -> Answer<ConfigApplied> {
    Ok(Json(control.confirm().await?))
}

fn within(query: ApplyQuery) -> Option<Duration> {
    query.confirm_within.map(Duration::from_secs)
}

/// A body of text.
struct Text(String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let text = String::from_request(request, state).await;
        text.map(Self).map_err(|error: StringRejection| Problem::new(error.status(), error.body_text()))
    }
}

/// The query.
struct Asked(ApplyQuery);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query
            .map(|Query(query)| Self(query))
            .map_err(|error: QueryRejection| Problem::bad_request(error.body_text()))
    }
}
