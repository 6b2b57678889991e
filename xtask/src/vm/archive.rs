//! An archive that the kernel unpacks into its first file system: cpio, format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive that is being written.
pub(crate) struct Archive<W> {
    to: W,
    entries: u32,
    /// What is in it already.
    paths: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, entries: 0, paths: BTreeSet::new() }
    }

    /// A directory, and those that it is in.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent().filter(|parent| parent.components().count() > 1) {
            self.directory(parent)?;
        }
        self.entry(path, DIRECTORY, &[])
    }

    /// A file of the host, at a path of its own.
    pub(crate) fn file(&mut self, from: &Path, path: &Path) -> Result<()> {
        let read = || -> io::Result<_> { Ok((fs::read(from)?, fs::metadata(from)?.permissions().mode())) };
        let (bytes, mode) = read().with_context(|| format!("cannot read {}", from.display()))?;
        self.bytes(path, &bytes, mode & 0o777)
    }

    /// A file with this content.
    pub(crate) fn bytes(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.entry(path, FILE | mode, bytes)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &Path, to: &str) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.entry(path, LINK, to.as_bytes())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.write("TRAILER!!!", 0, &[])?;
        self.to.flush().context("cannot write the archive")
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        if !self.paths.insert(path.to_owned()) {
            return Ok(());
        }
        let name =
            path.strip_prefix("/").unwrap_or(path).to_str().context("a path that is no text")?.to_owned();
        if name.is_empty() { Ok(()) } else { self.write(&name, mode, bytes) }
    }

    fn write(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entries += 1;
        let links = 1 + u32::from(mode == DIRECTORY);
        let size = u32::try_from(bytes.len()).context("a file of 4 GiB or more")?;
        let name_size = name.len() as u32 + 1;
        // Inode, mode, user, group, links, time, size, device, device of a special file, name, checksum.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            write!(header, "{field:08x}").context("a text takes what is written")?;
        }
        let mut write = |part: &[u8]| self.to.write_all(part);
        // Header and name together, and the content, end at multiples of four.
        let fill = |length: usize| &[0u8; 3][..length.next_multiple_of(4) - length];
        let written = write(header.as_bytes())
            .and_then(|()| write(name.as_bytes()))
            .and_then(|()| write(&[0]))
            .and_then(|()| write(fill(header.len() + name.len() + 1)))
            .and_then(|()| write(bytes))
            .and_then(|()| write(fill(bytes.len())));
        written.context("cannot write the archive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cpio`'s own listing would need `cpio`: the offsets are checked by hand.
    #[test]
    fn headers_and_contents_begin_at_multiples_of_four() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.bytes(Path::new("/etc/name"), b"seven!!", 0o644).unwrap();
        archive.link(Path::new("/sh"), "bin/sh").unwrap();
        archive.finish().unwrap();
        let magic = |at: &usize| bytes[*at..].starts_with(b"070701");
        let headers: Vec<usize> = (0..bytes.len()).step_by(4).filter(magic).collect();
        // `etc`: 110 + 4 = 114, to 116. `etc/name`: 110 + 9 = 119, to 120, and 7, to 8. `sh`: 110 + 3, to 116, and 6, to 8.
        assert_eq!(headers, [0, 116, 116 + 120 + 8, 116 + 128 + 116 + 8]);
        assert_eq!(&bytes[116 + 120..116 + 127], b"seven!!");
        assert_eq!(&bytes[116 + 14..116 + 22], b"000081a4", "a file's mode");
    }
}
