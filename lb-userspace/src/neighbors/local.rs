//! The host's own addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkAttribute;
use tokio::task::JoinSet;

use super::NeighborsError;
use super::kernel::request_error;

/// The addresses of all interfaces, those of `lo` too, each with the name of its interface.
pub async fn local_addresses() -> Result<Vec<(IpAddr, String)>, NeighborsError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|source| NeighborsError::Connect { source })?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut links = handle.link().get().execute();
    let mut names = HashMap::new();
    let fail = |action| move |error| request_error(action, error);
    while let Some(link) = links.try_next().await.map_err(fail("list the interfaces"))? {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        names.insert(link.header.index, name.unwrap_or_default());
    }
    let mut messages = handle.address().get().execute();
    let mut addresses = Vec::new();
    while let Some(message) = messages.try_next().await.map_err(fail("list the addresses"))? {
        let name = names.get(&message.header.index).cloned().unwrap_or_default();
        addresses.extend(own(&message).map(|address| (address, name)));
    }
    Ok(addresses)
}

/// The address of a message; of a point-to-point link its own end, which only the attribute "local" names.
pub(crate) fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(any)
}
