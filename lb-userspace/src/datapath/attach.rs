//! A program on an interface, for as long as this process lives and no longer.

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::LoadError;

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
    /// The kernel has no BPF links for XDP.
    #[error(
        "cannot attach to {interface}: the kernel offers no BPF link for it, so it could not be detached safely"
    )]
    NoLink {
        /// The interface.
        interface: String,
    },
}

/// The program on one interface; detaches when dropped.
#[derive(Debug)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// How it is attached.
    pub mode: AttachMode,
    _link: FdLink,
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
    Ok(Attachment { interface: interface.to_owned(), mode, _link: link })
}

fn attach_error(interface: &str, source: ProgramError) -> AttachError {
    let interface = interface.to_owned();
    match os_error(&source).and_then(std::io::Error::raw_os_error) {
        Some(code) if code == Errno::BUSY.raw_os_error() || code == Errno::EXIST.raw_os_error() => {
            AttachError::Busy { interface }
        }
        _ => AttachError::Refused { interface, source },
    }
}

fn os_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    match error.downcast_ref() {
        Some(io) => Some(io),
        None => error.source().and_then(os_error),
    }
}

fn innermost(error: &ProgramError) -> String {
    os_error(error).map_or_else(|| error.to_string(), ToString::to_string)
}
