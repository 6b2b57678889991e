//! A program on an interface: for as long as this process lives, or for as long as its link is pinned.

use std::io;
use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::LoadError;
use super::pins::PinsError;

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel allocates anything.
    Native,
    /// In the network stack: works everywhere, many times slower.
    Generic,
}

impl AttachMode {
    /// Its name in output and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Why the program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Something else is there.
    #[error(
        "{interface} already has an XDP program; find it with `ip -details link show {interface}` and stop its owner; \
         one that nobody owns goes with `ip link set {interface} xdp off`"
    )]
    Busy {
        /// The interface.
        interface: String,
    },
    /// The kernel refused both modes.
    #[error("cannot attach to {interface}: {source}")]
    Refused {
        /// The interface.
        interface: String,
        /// The kernel's reason.
        source: ProgramError,
    },
    /// There is no program to attach.
    #[error(transparent)]
    Program(#[from] LoadError),
    /// What is pinned cannot be used.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The program of a pinned link cannot be replaced.
    #[error("{interface}: cannot replace the program that is there, which goes on: {source}")]
    Replace {
        /// The interface.
        interface: String,
        /// The kernel's reason.
        source: ProgramError,
    },
    /// The kernel has no BPF links for XDP.
    #[error(
        "cannot attach to {interface}: the kernel offers no BPF link for it, so it could not be detached safely"
    )]
    NoLink {
        /// The interface.
        interface: String,
    },
}

/// The program on one interface; detaches when dropped, unless its link is pinned.
#[derive(Debug)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// How it is attached.
    pub mode: AttachMode,
    link: FdLink,
}

impl Attachment {
    /// What a link to an interface amounts to.
    pub(super) fn new(interface: &str, index: u32, mode: AttachMode, link: FdLink) -> Self {
        Self { interface: interface.to_owned(), index, mode, link }
    }

    /// The same, from now on for as long as the pin is there.
    pub(super) fn pinned(self, path: &Path) -> Result<Self, AttachError> {
        let pinned = self.link.pin(path);
        let link = pinned.map_err(|error| PinsError::system("pin", path, io::Error::other(error)))?.into();
        Ok(Self { link, ..self })
    }
}

/// How some program is attached to an interface, as the kernel tells by netlink; `None` if there is none.
pub(crate) fn attached_mode(index: u32) -> Option<AttachMode> {
    let mut socket = Socket::new(NETLINK_ROUTE).ok()?;
    socket.bind_auto().ok()?;
    let mut request = LinkMessage::default();
    request.header.index = index;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(request));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0).ok()?;
    let (answer, _) = socket.recv_from_full().ok()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).ok()?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = answer.payload else {
        return None;
    };
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Xdp(xdp) = attribute else { return None };
        xdp.iter().find_map(|one| match one {
            LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => Some(AttachMode::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(AttachMode::Generic),
            _ => None,
        })
    })
}

/// The index of an interface, if there is one of this name.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(any, name).ok()
}

/// Attaches `program` natively, else generically with a warning that says why.
pub(crate) fn attach(program: &mut Xdp, interface: &str, index: u32) -> Result<Attachment, AttachError> {
    match attach_in(program, interface, index, AttachMode::Native) {
        Err(AttachError::Refused { source, .. }) => {
            let reason = innermost(&source);
            let attachment = attach_in(program, interface, index, AttachMode::Generic)?;
            tracing::warn!(
                "{interface}: attached in generic mode, many times slower, because its driver refused native XDP: \
                 {reason}"
            );
            Ok(attachment)
        }
        other => other,
    }
}

fn attach_in(
    program: &mut Xdp,
    interface: &str,
    index: u32,
    mode: AttachMode,
) -> Result<Attachment, AttachError> {
    let flags = match mode {
        AttachMode::Native => XdpMode::Driver,
        AttachMode::Generic => XdpMode::Skb,
    };
    let refused = |source: ProgramError| attach_error(interface, source);
    let id = program.attach_to_if_index(index, flags).map_err(refused)?;
    let link = program.take_link(id).map_err(refused)?;
    // Where there is no BPF link aya attaches by netlink, which outlives a crash; dropping that link detaches it.
    let link = link.try_into().map_err(|_| AttachError::NoLink { interface: interface.to_owned() })?;
    Ok(Attachment::new(interface, index, mode, link))
}

fn attach_error(interface: &str, source: ProgramError) -> AttachError {
    let interface = interface.to_owned();
    match os_error(&source).and_then(io::Error::raw_os_error) {
        Some(code) if code == Errno::BUSY.raw_os_error() || code == Errno::EXIST.raw_os_error() => {
            AttachError::Busy { interface }
        }
        _ => AttachError::Refused { interface, source },
    }
}

fn os_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    match error.downcast_ref() {
        Some(io) => Some(io),
        None => error.source().and_then(os_error),
    }
}

fn innermost(error: &ProgramError) -> String {
    os_error(error).map_or_else(|| error.to_string(), ToString::to_string)
}
