//! What `bpf(2)` offers and aya does not: opening a pin of any kind, and asking a link for its interface.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use rustix::io::Errno;

/// Commands of `bpf(2)` (`enum bpf_cmd` of include/uapi/linux/bpf.h).
const OBJ_GET: i64 = 7;
const OBJ_GET_INFO_BY_FD: i64 = 15;
/// `BPF_LINK_TYPE_XDP` of the same file.
const LINK_TYPE_XDP: u32 = 6;

/// What `union bpf_attr` has for [`OBJ_GET`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// What `union bpf_attr` has for [`OBJ_GET_INFO_BY_FD`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` as far as it is of interest for XDP.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    ifindex: u32,
    rest: u32,
}

/// A pinned link to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XdpLinkFacts {
    /// The program's number.
    pub(crate) program: u32,
    /// The interface's index; 0 if the interface is gone.
    pub(crate) index: u32,
}

/// Opens what is pinned at a path.
pub(super) fn open_pin(path: &Path) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, ..ObjGet::zeroed() };
    // SAFETY: the kernel reads a string at `pathname`, which ends with a zero and outlives the call.
    let fd = unsafe { bpf(OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a link to an interface is about; `None` if it is another kind of link.
pub(super) fn xdp_link(link: impl AsFd) -> Result<Option<XdpLinkFacts>, Errno> {
    let mut info = LinkInfo::zeroed();
    let mut attr = ObjGetInfo {
        bpf_fd: link.as_fd().as_raw_fd().cast_unsigned(),
        info_len: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes at `info`, which are those of `info` here.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let facts = XdpLinkFacts { program: info.prog_id, index: info.ifindex };
    Ok((info.kind == LINK_TYPE_XDP).then_some(facts))
}

/// Calls `bpf(2)`.
///
/// # Safety
///
/// `attr` is what `union bpf_attr` has for the command, and its pointers lead to as much memory as the kernel reads or writes
/// there for it, which outlives the call.
pub(super) unsafe fn bpf<T: Pod>(command: i64, attr: &mut T) -> Result<i32, Errno> {
    // SAFETY: `attr` itself is read and written, and its size is told; of its pointers the caller knows.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if code >= 0 {
        return Ok(code as i32);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
