//! Links: the program on an interface, pinned by the interface's name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp};

use super::super::attach::{AttachError, Attachment, attach, attached_mode};
use super::super::sys::{XdpLinkFacts, open_pin, xdp_link};
use super::{Pins, PinsError, Plan, make, names, tables};

/// A pinned link, and what it is.
#[derive(Clone, Debug)]
pub(crate) struct PinnedLinkFacts {
    /// The interface's name when the program was attached to it.
    pub(crate) interface: String,
    /// The program's number.
    pub(crate) program: u32,
    /// The interface's index; 0 if the interface is gone.
    pub(crate) index: u32,
    /// Where it is pinned.
    pub(crate) path: PathBuf,
}

/// The name of an interface's pin. A BPF file system takes no dots, and an interface's name no colons.
fn pin_name(interface: &str) -> String {
    interface.replace('.', ":")
}

/// The links that are pinned in a directory.
pub(super) fn pinned(directory: &Path) -> Result<Vec<PinnedLinkFacts>, PinsError> {
    let mut links = Vec::new();
    for name in names(directory)? {
        let path = directory.join(&name);
        let link = open_pin(&path).map_err(|error| PinsError::system("open", &path, error))?;
        let facts = xdp_link(&link).map_err(|error| PinsError::system("ask", &path, error))?;
        if let Some(XdpLinkFacts { program, index }) = facts {
            links.push(PinnedLinkFacts { interface: name.replace(':', "."), program, index, path });
        }
    }
    Ok(links)
}

impl Pins {
    /// Brings the program to all interfaces: where a link is pinned by replacing the program before it, which no packet
    /// notices. If one refuses, those that had no program have none again.
    pub(crate) fn attach(
        &self,
        program: &mut Xdp,
        interfaces: &[(String, u32)],
    ) -> Result<Vec<Attachment>, AttachError> {
        let directory = self.links_directory();
        make(&directory)?;
        let links = self.links()?;
        let mut pinned = Pinned::default();
        let mut attachments = Vec::new();
        for (interface, index) in interfaces {
            let path = directory.join(pin_name(interface));
            if links.iter().any(|link| link.path == path && link.index == *index) {
                continue;
            }
            // The link of an interface that is gone, or has come again as another, holds nothing.
            drop(fs::remove_file(&path));
            let attachment = attach(program, interface, *index)?.pinned(&path)?;
            pinned.0.push(path);
            attachments.push(attachment);
        }
        for (interface, index) in interfaces {
            let path = directory.join(pin_name(interface));
            if !pinned.0.contains(&path) {
                attachments.push(replace(program, interface, *index, &path)?);
            }
        }
        pinned.0.clear();
        let place = |one: &Attachment| interfaces.iter().position(|(name, _)| *name == one.interface);
        attachments.sort_by_key(place);
        Ok(attachments)
    }

    /// Detaches from interfaces that are not wanted any more, and removes all that nothing needs now.
    pub(crate) fn tidy(
        &self,
        plan: &Plan,
        program: u32,
        interfaces: &[(String, u32)],
    ) -> Result<(), PinsError> {
        for link in self.links()? {
            if !interfaces.iter().any(|(name, _)| *name == link.interface) {
                remove(&link.path)?;
            }
        }
        tables::tidy(&self.root, plan, program)
    }

    /// Detaches from one interface; says whether the program was there.
    pub(crate) fn detach(&self, interface: &str) -> Result<bool, PinsError> {
        let path = self.links_directory().join(pin_name(interface));
        if !path.exists() {
            return Ok(false);
        }
        remove(&path).map(|()| true)
    }
}

fn remove(path: &Path) -> Result<(), PinsError> {
    fs::remove_file(path).map_err(|error| PinsError::system("remove", path, error))
}

/// Pins that are taken back unless all goes well.
#[derive(Default)]
struct Pinned(Vec<PathBuf>);

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}

/// Lets a pinned link lead to this program from one packet to the next (`BPF_LINK_UPDATE`).
fn replace(program: &mut Xdp, interface: &str, index: u32, path: &Path) -> Result<Attachment, AttachError> {
    let refused = |source: ProgramError| AttachError::Replace { interface: interface.to_owned(), source };
    let unreadable = |error: LinkError| PinsError::system("open", path, io::Error::other(error));
    let link = FdLink::from(PinnedLink::from_pin(path).map_err(unreadable)?);
    let id = program.attach_to_link(XdpLink::try_from(link).map_err(unreadable)?).map_err(refused)?;
    let link = program.take_link(id).map_err(refused)?;
    let link = link.try_into().map_err(|_| AttachError::NoLink { interface: interface.to_owned() })?;
    let mode = attached_mode(index).unwrap_or(super::super::AttachMode::Native);
    Ok(Attachment::new(interface, index, mode, link))
}
