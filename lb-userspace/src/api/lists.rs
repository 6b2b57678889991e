//! `/v1/deny` and `/v1/allow`: one list each.

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{MethodRouter, get};

use super::problem::Body;
use super::{Answer, Control};
use crate::controller::{ListAction, ListChange};
use crate::model::{ListName, PrefixError};
use crate::view::{Applied, PrefixList, Problem};

/// As many prefixes as there is room for, each as long as can be.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What one list answers to.
pub(super) fn routes<C: Control>(list: ListName) -> MethodRouter<C> {
    let act = move |action| {
        move |State(control): State<C>, Body(body): Body<PrefixList>| change(control, list, action, body)
    };
    get(move |State(control): State<C>| show(control, list))
        .post(act(ListAction::Add))
        .put(act(ListAction::Replace))
        .delete(act(ListAction::Remove))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn show<C: Control>(control: C, list: ListName) -> Answer<PrefixList> {
    Ok(Json(control.list(list).await?))
}

async fn change<C: Control>(
    control: C,
    list: ListName,
    action: ListAction,
    body: PrefixList,
) -> Answer<Applied> {
    let prefixes = body.prefixes.iter().map(|text| text.parse()).collect::<Result<_, PrefixError>>();
    let prefixes = prefixes.map_err(|error| Problem::bad_request(format!("{list} prefix {error}")))?;
    Ok(Json(control.change_list(ListChange { list, action, prefixes }).await?))
}
