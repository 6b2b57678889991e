//! Lost updates: whoever read something to change it can have his change refused if somebody else was faster (RFC 9110,
//! section 13.1.1).

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use super::Shared;
use crate::view::Problem;

/// What a change is asked of: it is refused if the request names another generation than the one in force.
pub(super) struct Guarded(pub(super) Shared);

impl FromRequestParts<Shared> for Guarded {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Shared) -> Result<Self, Problem> {
        let Some(tag) = parts.headers.get(IF_MATCH).filter(|tag| *tag != "*") else {
            return Ok(Self(Shared::clone(control)));
        };
        match generation(tag) {
            Some(generation) => Ok(Self(control.expecting(generation))),
            None => Err(Problem::bad_request(format!(
                "if-match: {tag:?} is no generation; the etag of an answer is one, and the present is \"{}\"",
                control.generation()
            ))),
        }
    }
}

/// The generation of an entity tag.
fn generation(tag: &HeaderValue) -> Option<u64> {
    tag.to_str().ok()?.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// Tells with what was read of which generation it is, or of a later one.
pub(super) async fn tell_generation(State(control): State<Shared>, request: Request, next: Next) -> Response {
    let is_safe = request.method().is_safe();
    // Before the answer is made: so whoever hands it back has seen at least that much.
    let tag = HeaderValue::from_str(&format!("\"{}\"", control.generation()));
    let mut response = next.run(request).await;
    if is_safe
        && response.status().is_success()
        && let Ok(tag) = tag
    {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
