//! The host's own addresses, and the programs on its interfaces.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use tokio::task::JoinSet;

use super::NeighborsError;
use super::kernel::request_error;

/// The addresses of all interfaces, those of `lo` too, each with the name of its interface.
pub async fn local_addresses() -> Result<Vec<(IpAddr, String)>, NeighborsError> {
    let mut tasks = JoinSet::new();
    let handle = connect(&mut tasks)?;
    let links = links(&handle).await?.into_iter();
    let names: HashMap<u32, String> =
        links.map(|link| (link.header.index, name(&link).unwrap_or_default())).collect();
    let mut messages = handle.address().get().execute();
    let mut addresses = Vec::new();
    while let Some(message) = messages.try_next().await.map_err(fail("list the addresses"))? {
        let name = names.get(&message.header.index).cloned().unwrap_or_default();
        addresses.extend(own(&message).map(|address| (address, name)));
    }
    Ok(addresses)
}

/// The XDP program of each interface that has one, by its number (`IFLA_XDP_PROG_ID` of `include/uapi/linux/if_link.h`).
pub async fn xdp_programs() -> Result<BTreeMap<String, u32>, NeighborsError> {
    let mut tasks = JoinSet::new();
    let links = links(&connect(&mut tasks)?).await?;
    Ok(links.iter().filter_map(|link| name(link).zip(program(link))).collect())
}

/// A connection, which `tasks` runs.
fn connect(tasks: &mut JoinSet<()>) -> Result<Handle, NeighborsError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|source| NeighborsError::Connect { source })?;
    tasks.spawn(connection);
    Ok(handle)
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, NeighborsError> {
    handle.link().get().execute().try_collect().await.map_err(fail("list the interfaces"))
}

fn fail(action: &'static str) -> impl Fn(rtnetlink::Error) -> NeighborsError {
    move |error| request_error(action, error)
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn program(link: &LinkMessage) -> Option<u32> {
    let attributes = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    })?;
    attributes.iter().find_map(|one| match one {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })
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
