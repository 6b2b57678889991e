//! What the API says of itself: `OpenAPI` 3.1, made from the handlers that answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::{
    Components, Content, Info, License, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder,
};
use utoipa::{IntoResponses, PartialSchema as _, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;

use super::pages::{Shapes, cut_to_measure};
use super::{PROBLEM, Shared};
use crate::view::Problem;

/// Where it is told.
pub(super) const PATH: &str = "/v1/openapi.json";

/// The API without its paths, which the routes add.
pub(super) fn document() -> OpenApi {
    let mut info = Info::new("lb", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "A layer-4 load balancer: what it does, and what it is to do. Whatever is refused changes nothing and is \
         answered with a problem of RFC 9457."
            .to_owned(),
    );
    info.license = Some(License::new(env!("CARGO_PKG_LICENSE")));
    let mut components = Components::new();
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Routes, with the document that describes them.
pub(super) fn describe(routes: OpenApiRouter<Shared>) -> axum::Router<Shared> {
    let (described, mut document) = routes.split_for_parts();
    document.paths.paths.values_mut().for_each(guard);
    let shapes = Arc::new(Shapes::describe(&mut document));
    described
        .layer(from_fn_with_state(shapes, cut_to_measure))
        .route(PATH, get(async move || Json(document.clone())))
}

/// Every change takes the generation that it is for.
fn guard(path: &mut PathItem) {
    let header = ParameterBuilder::new()
        .name("If-Match")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Refuse unless this is the generation in force: the etag of what was read, such as \"42\".",
        ))
        .schema(Some(String::schema()))
        .build();
    let superseded =
        problem("Another generation is in force than the one of the header if-match; nothing was changed.");
    for change in [&mut path.put, &mut path.post, &mut path.patch, &mut path.delete].into_iter().flatten() {
        change.parameters.get_or_insert_default().push(header.clone().into());
        let status = StatusCode::PRECONDITION_FAILED.as_u16().to_string();
        change.responses.responses.insert(status, superseded.clone().into());
    }
}

/// What any request may be answered with instead of what it is for.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let all = [
            (StatusCode::BAD_REQUEST, "The request is not as it should be; nothing was changed."),
            (
                StatusCode::UNAUTHORIZED,
                "Over the network: no token and no certificate, or none that is good.",
            ),
            (StatusCode::FORBIDDEN, "The client may only read."),
            (StatusCode::NOT_FOUND, "There is nothing of this name."),
            (StatusCode::REQUEST_TIMEOUT, "The request was not whole, or not done, in time."),
            (StatusCode::CONFLICT, "The balancer cannot be brought to this; nothing was changed."),
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another type than it should be."),
            (StatusCode::TOO_MANY_REQUESTS, "The client asks too often."),
            (StatusCode::SERVICE_UNAVAILABLE, "The daemon is about to stop."),
        ];
        all.map(|(status, words)| (status.as_u16().to_string(), problem(words).into())).into()
    }
}

fn problem(words: &str) -> Response {
    let schema = Content::new(Some(Ref::from_schema_name(Problem::name())));
    ResponseBuilder::new().description(words).content(PROBLEM, schema).build()
}
