//! Unix listeners and their files: only a socket is ever removed, and only one that was made here or that nobody listens on.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The file of a listener. It is removed when this is dropped, if it is still the same.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode of a socket.
#[derive(Copy, Clone, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    /// `None`: there is nothing, or something that is no socket. A symbolic link is none, whatever it leads to.
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::symlink_metadata(path).ok()?;
        let is_socket = found.file_type().is_socket();
        is_socket.then(|| Self(found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have put another one there.
        if Identity::of(&self.path) == Some(self.identity) {
            // Where that is not permitted, the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A listener on `path`; `@name` is an abstract name on Linux, which has no file. The socket of a program that was killed, on
/// which nobody listens any more, is replaced.
///
/// # Errors
/// When the path cannot be had: somebody listens there, or there is something else than a socket.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, Option<SocketFile>)> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_os_str().as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&addr)?;
        listener.set_nonblocking(true)?;
        return Ok((UnixListener::from_std(listener)?, None));
    }
    let listener = match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, e)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    let file = match (std::path::absolute(path), Identity::of(path)) {
        (Ok(path), Some(identity)) => Some(SocketFile { path, identity }),
        // Removed or replaced in this moment: it is not ours to remove.
        _ => None,
    };
    Ok((listener, file))
}

/// Removes the socket at `path` if nobody listens on it.
///
/// # Errors
/// `in_use` if somebody does; or what is there is no socket.
fn remove_stale(path: &Path, in_use: io::Error) -> io::Result<()> {
    let Some(before) = Identity::of(path) else {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is not a socket; it is left alone",
        ));
    };
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if !refused || Identity::of(path) != Some(before) {
        return Err(in_use);
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener as Other;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fulmar-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("dir");
            Self(path)
        }

        fn join(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_wrong_path_deletes_no_file() {
        let dir = Dir::new("wrong-path");
        let config = dir.join("config.json");
        std::fs::write(&config, "{}").expect("written");
        let (to_file, to_stale) = (dir.join("to-file"), dir.join("to-stale"));
        symlink(&config, &to_file).expect("link");
        // A link to a socket that refuses is not that socket.
        drop(Other::bind(dir.join("stale")).expect("bound"));
        symlink(dir.join("stale"), &to_stale).expect("link");
        let pipe = dir.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        let mut all = vec![config.clone(), to_file, to_stale, dir.0.clone()];
        if made.is_ok_and(|status| status.success()) {
            all.push(pipe);
        }
        for path in all {
            let before = std::fs::symlink_metadata(&path).expect("it is there");
            let error = bind(&path).err().expect("refused");
            let text = error.to_string();
            assert!(text.contains("not a socket"), "{}: {text}", path.display());
            let after = std::fs::symlink_metadata(&path).expect("it is still there");
            assert_eq!(
                (before.ino(), before.file_type()),
                (after.ino(), after.file_type())
            );
        }
        assert_eq!(std::fs::read_to_string(&config).expect("read"), "{}");
        assert!(Identity::of(&dir.join("stale")).is_some());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let dir = Dir::new("stale");
        let path = dir.join("socket");
        drop(Other::bind(&path).expect("bound"));
        let stale = Identity::of(&path);
        let (listener, file) = bind(&path).expect("replaced");
        assert!(file.is_some());
        let ours = Identity::of(&path);
        assert!(ours.is_some());
        let error = bind(&path).err().expect("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(Identity::of(&path) == ours);
        drop((listener, file));
        assert!(stale.is_some() && Identity::of(&path).is_none());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn at_the_end_only_the_own_socket_is_removed() {
        let dir = Dir::new("end");
        let path = dir.join("socket");
        // A file in its place, another program's socket, nothing.
        let (_listener, file) = bind(&path).expect("bound");
        std::fs::rename(&path, dir.join("moved")).expect("moved");
        std::fs::write(&path, "precious").expect("written");
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "precious");
        std::fs::remove_file(&path).expect("removed");

        let (_listener, file) = bind(&path).expect("bound");
        std::fs::rename(&path, dir.join("moved-too")).expect("moved");
        let _other = Other::bind(&path).expect("bound");
        drop(file);
        assert!(Identity::of(&path).is_some());
        std::fs::remove_file(&path).expect("removed");

        let (_listener, file) = bind(&path).expect("bound");
        std::fs::remove_file(&path).expect("removed");
        drop(file);
        assert!(!path.exists());
    }
}
