//! Answers that are no success, as `application/problem+json` (RFC 9457), also for requests no handler has
//! seen.

use std::fmt;

use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::controller::{ChangeError, ControllerGone};
use crate::view::Problem;

/// The most bytes of what was sent that are said again. Who sends much is not sent it back.
const DETAIL: usize = 16 << 10;

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Problem").to_owned();
        let mut detail = detail.into();
        if detail.len() > DETAIL {
            detail.truncate(detail.floor_char_boundary(DETAIL));
            detail.push('\u{2026}');
        }
        Self { title, status: status.as_u16(), detail }
    }

    /// A mistake of the daemon's own.
    pub(super) fn internal(error: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be made: {error}"))
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, super::PROBLEM)], Json(self)).into_response()
    }
}

impl From<ControllerGone> for Problem {
    fn from(error: ControllerGone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::NotFound(_) => StatusCode::NOT_FOUND,
            ChangeError::Refused(_) => StatusCode::CONFLICT,
            ChangeError::Superseded { .. } => StatusCode::PRECONDITION_FAILED,
            ChangeError::Gone => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

/// How many bytes a body may have, known to those who read it.
#[derive(Clone, Copy)]
pub(super) struct BodyLimit(usize);

impl BodyLimit {
    /// What keeps larger bodies from handlers.
    pub(super) fn layer(bytes: usize) -> (DefaultBodyLimit, Extension<Self>) {
        (DefaultBodyLimit::max(bytes), Extension(Self(bytes)))
    }

    /// The bound of a request's body.
    pub(super) fn of(request: &Request) -> Option<Self> {
        request.extensions().get().copied()
    }

    /// The problem of a body that could not be read: a sender who is told the bound can keep to it.
    pub(super) fn refusal(limit: Option<Self>, status: StatusCode, words: String) -> Problem {
        match limit {
            Some(Self(bytes)) if status == StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                status,
                format!("the body is larger than {bytes} bytes, which is the most for this path"),
            ),
            _ => Problem::new(status, words),
        }
    }
}

/// A JSON object. What is malformed is a 400, whether its syntax or its fields: the caller mends both the same way.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limit = BodyLimit::of(&request);
        let body = Json::from_request(request, state).await;
        let Json(value) = body
            .map_err(|error: JsonRejection| BodyLimit::refusal(limit, error.status(), error.body_text()))?;
        object(value).map(Self)
    }
}

/// The same, which may be absent: then it is the default.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<S: Send + Sync, T: Default + DeserializeOwned> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limit = BodyLimit::of(&request);
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| BodyLimit::refusal(limit, error.status(), error.body_text()))?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        object(serde_json::from_slice(&bytes).map_err(|error| malformed(&error))?).map(Self)
    }
}

/// Reads an object. Serde would also take an array with a structure's fields in their order.
fn object<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    if !value.is_object() {
        return Err(malformed(&"it is not an object"));
    }
    serde_json::from_value(value).map_err(|error| malformed(&error))
}

fn malformed(error: &dyn std::fmt::Display) -> Problem {
    Problem::bad_request(format!("the body is not as it should be: {error}"))
}

/// The parameters of a path.
pub(super) struct Place<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Place<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value))
            .map_err(|rejection: PathRejection| Problem::new(rejection.status(), rejection.body_text()))
    }
}

/// What stands behind the path.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query
            .map(|Query(value)| Self(value))
            .map_err(|rejection: QueryRejection| Problem::new(rejection.status(), rejection.body_text()))
    }
}

pub(super) async fn unknown_path(uri: Uri) -> Problem {
    nothing_at(&uri)
}

pub(super) fn nothing_at(uri: &Uri) -> Problem {
    let detail = format!("there is nothing at {}; {} tells what there is", uri.path(), super::openapi::PATH);
    Problem::new(StatusCode::NOT_FOUND, detail)
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}; see the allow header of this answer", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
