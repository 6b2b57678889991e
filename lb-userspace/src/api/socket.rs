//! The API's Unix socket: one daemon at a time, no stale socket in the way, none left behind.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown,
};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use tokio::net::UnixListener;

use super::roles::OPERATORS;

/// Why the API's socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon holds the lock.
    #[error(
        "another lb daemon already serves {}{}; stop it or choose another socket with [daemon] socket",
        socket.display(), pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The socket.
        socket: PathBuf,
        /// The process that holds it, if it has said so.
        pid: Option<u32>,
    },
    /// Something that is no socket is in the way.
    #[error(
        "{} exists and is not a socket; move it away or choose another socket with [daemon] socket",
        path.display()
    )]
    InTheWay {
        /// What is in the way.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("cannot {action} {}: {source}; choose another socket with [daemon] socket", path.display())]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BindError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A listening socket that belongs to this process alone.
#[derive(Debug)]
pub struct ApiSocket {
    /// Accepts the CLI's connections.
    pub listener: UnixListener,
    /// Keeps other daemons away and cleans up; must live as long as the listener.
    pub guard: SocketGuard,
}

/// Removes the socket when dropped, then gives up the lock.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    _lock: File,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Binds the socket at `path`, with its folder if need be. Its owner and the members of group `lb` may connect.
pub fn bind(path: &Path) -> Result<ApiSocket, BindError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(BindError::io("create", folder))?;
    }
    let lock = take_lock(path)?;
    refuse_other_files(path)?;
    let listener = bind_in_place(path)?;
    Ok(ApiSocket { listener, guard: SocketGuard { path: path.to_owned(), _lock: lock } })
}

/// The lock file stays behind: removing it would let two daemons lock two files of the same name.
fn take_lock(socket: &Path) -> Result<File, BindError> {
    let path = sibling(socket, "lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path);
    let mut file = open.map_err(BindError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(BindError::Taken { socket: socket.to_owned(), pid: read_pid(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(BindError::io("lock", &path)(source)),
    }
    write_pid(&mut file).map_err(BindError::io("write", &path))?;
    Ok(file)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn refuse_other_files(path: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(BindError::InTheWay { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Binds under a passing name and renames, so that the socket never exists with looser permissions and a
/// stale one, which the lock proves to be stale, is replaced in one step.
fn bind_in_place(path: &Path) -> Result<UnixListener, BindError> {
    let passing = sibling(path, "new");
    // What a daemon killed at this very point left behind; if something else is wrong, binding says so.
    drop(std::fs::remove_file(&passing));
    let listener = UnixListener::bind(&passing).map_err(BindError::io("bind", path))?;
    let finish = || {
        std::fs::set_permissions(&passing, Permissions::from_mode(0o660))?;
        give_to_operators(&passing);
        std::fs::rename(&passing, path)
    };
    finish().map_err(BindError::io("bind", path))?;
    Ok(listener)
}

/// Lets the members of [`OPERATORS`] connect, if there is such a group; else it stays with the daemon's own.
fn give_to_operators(socket: &Path) {
    let Ok(Some(group)) = Group::from_name(OPERATORS) else { return };
    if let Err(error) = lchown(socket, None, Some(group.gid.as_raw())) {
        tracing::warn!("the API's socket cannot be given to group {OPERATORS}: {error}");
    }
}

fn sibling(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener as StdListener;

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_goes_with_its_guard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/lb.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(
            std::fs::read_to_string(sibling(&path, "lock")).unwrap(),
            format!("{}\n", std::process::id())
        );
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_second_daemon_is_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.sock");
        let first = bind(&path).unwrap();
        let sentence = bind(&path).unwrap_err().to_string();
        let expected = format!(
            "another lb daemon already serves {} (process {}); stop it or choose another socket with \
             [daemon] socket",
            path.display(),
            std::process::id()
        );
        assert_eq!(sentence, expected);
        assert!(path.exists(), "the first daemon keeps its socket");
        drop(first);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.sock");
        drop(StdListener::bind(&path).unwrap());
        drop(StdListener::bind(sibling(&path, "new")).unwrap());
        let socket = bind(&path).unwrap();
        let (connected, accepted) =
            tokio::join!(tokio::net::UnixStream::connect(&path), socket.listener.accept());
        connected.unwrap();
        accepted.unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_way_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.sock");
        std::fs::write(&path, "precious").unwrap();
        let sentence = bind(&path).unwrap_err().to_string();
        assert!(sentence.contains("exists and is not a socket; move it away"), "{sentence}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_is_named() {
        let sentence = bind(Path::new("/dev/null/lb.sock")).unwrap_err().to_string();
        assert!(sentence.starts_with("cannot create /dev/null: "), "{sentence}");
    }
}
