//! What is asked of a backend: `POST` to `ready`, `drain` and `maintenance` under the backend.

use axum::Router;
use axum::extract::State;
use axum::routing::post;

use super::problem::{OptionalBody, Place};
use super::{Answer, Control, apply, parse_endpoint};
use crate::config::parse_drain_timeout;
use crate::controller::Change;
use crate::model::AdminState;
use crate::view::{Applied, DrainBackend, Problem};

pub(super) fn routes<C: Control>() -> Router<C> {
    let backend = "/v1/services/{service}/backends/{address}";
    Router::new()
        .route(&format!("{backend}/ready"), post(ready::<C>))
        .route(&format!("{backend}/drain"), post(drain::<C>))
        .route(&format!("{backend}/maintenance"), post(maintenance::<C>))
}

/// Service and address of a backend.
type Backend = Place<(String, String)>;

async fn ready<C: Control>(State(control): State<C>, backend: Backend) -> Answer<Applied> {
    set(&control, backend, AdminState::Ready).await
}

async fn maintenance<C: Control>(State(control): State<C>, backend: Backend) -> Answer<Applied> {
    set(&control, backend, AdminState::Maintenance).await
}

async fn drain<C: Control>(
    State(control): State<C>,
    backend: Backend,
    OptionalBody(DrainBackend { timeout }): OptionalBody<DrainBackend>,
) -> Answer<Applied> {
    let timeout = timeout.map(|text| parse_drain_timeout(&text)).transpose();
    let timeout = timeout.map_err(|error| Problem::bad_request(format!("timeout: {error}")))?;
    set(&control, backend, AdminState::Drain { timeout }).await
}

async fn set<C: Control>(
    control: &C,
    Place((service, address)): Backend,
    state: AdminState,
) -> Answer<Applied> {
    let endpoint = parse_endpoint(&address)?;
    apply(control, Change::SetState { service, endpoint, state }).await
}
