//! A pinned program without a daemon: what is known of it, and how it gets to an interface again.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aya::programs::{ProgramError, ProgramInfo, Xdp};
use aya_obj::programs::xdp::XdpAttachType;

use super::attach::{AttachError, attached_mode};
use super::pins::{Glance, Pins, PinsError};
use crate::view::{XdpInterface, XdpStatus};

/// Why a pinned program was not put back.
#[derive(Debug, thiserror::Error)]
pub enum PinnedError {
    /// There is none.
    #[error("no program is pinned at {}: start a daemon, which pins one", path.display())]
    NoProgram {
        /// The pin directory.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Unreadable {
        /// Its pin.
        path: PathBuf,
        /// The reason.
        source: ProgramError,
    },
    /// What is pinned cannot be used.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// It cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl Pins {
    /// Puts the program that was pinned last on an interface.
    pub fn put_back(&self, interface: &str, index: u32) -> Result<(), PinnedError> {
        let glance = Glance::at(self.root());
        let path =
            glance.newest_program().ok_or_else(|| PinnedError::NoProgram { path: self.root().to_owned() })?;
        let program = Xdp::from_pin(&path, XdpAttachType::Interface);
        let mut program = program.map_err(|source| PinnedError::Unreadable { path, source })?;
        self.attach(&mut program, &[(interface.to_owned(), index)])?;
        Ok(())
    }
}

/// What is pinned below a directory, where the program is, and who looks after it.
pub(crate) fn status(pins: &Path) -> Result<XdpStatus, PinsError> {
    let glance = Glance::at(pins);
    let mut interfaces = Vec::new();
    for link in glance.links()? {
        let info = glance.program(link.program).and_then(|path| ProgramInfo::from_pin(path).ok());
        let since = info.and_then(|info| SystemTime::now().duration_since(info.loaded_at()?).ok());
        let mode = (link.index != 0).then(|| attached_mode(link.index)).flatten();
        interfaces.push(XdpInterface {
            name: link.interface,
            mode: mode.map(|mode| mode.name().to_owned()),
            program: link.program,
            since_seconds: since.map(|since| since.as_secs()),
        });
    }
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(XdpStatus { pins: pins.to_owned(), daemon: glance.holder(), interfaces })
}
