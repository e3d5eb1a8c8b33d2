//! What lines are written to: the standard streams, a file, the system's log.
//!
//! The standard streams are written to past the buffers and locks of the standard library: a stream that blocks must hold up nobody but the
//! thread that writes to it. Their descriptors came from whoever started the program and are shared with it, so their flags stay as they are.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::queue::{Outlets, Output};
#[cfg(unix)]
use crate::process::syslog::Syslog;

/// All of them.
pub(super) struct Standard {
    file: Option<LogFile>,
    #[cfg(unix)]
    syslog: Syslog,
}

/// A log file that can be opened again.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens `path`, to append to it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: append(path)?,
        })
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Standard {
    pub(super) fn new(file: Option<LogFile>) -> Self {
        Self {
            file,
            #[cfg(unix)]
            syslog: Syslog::new(),
        }
    }
}

impl Outlets for Standard {
    fn write(&mut self, output: Output, record: &[u8]) -> io::Result<()> {
        match output {
            Output::Stdout => write_all(&io::stdout(), record),
            Output::Stderr => write_all(&io::stderr(), record),
            Output::File => match &self.file {
                Some(log) => write_all(&log.file, record),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            #[cfg(unix)]
            Output::Syslog => self.syslog.send(record.trim_ascii_end()),
            // Nowhere.
            #[cfg(not(unix))]
            Output::Syslog => Ok(()),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Some(log) = &mut self.file {
            log.file = append(&log.path)?;
        }
        Ok(())
    }
}

/// Writes all of `bytes`, however long it takes.
#[cfg(unix)]
pub(super) fn write_all(to: &impl std::os::fd::AsFd, mut bytes: &[u8]) -> io::Result<()> {
    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            // Somebody else has made it so.
            Err(Errno::EAGAIN) => {
                let mut ready = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut ready, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Writes all of `bytes`, however long it takes.
#[cfg(not(unix))]
pub(super) fn write_all<W>(mut to: &W, bytes: &[u8]) -> io::Result<()>
where
    for<'a> &'a W: io::Write,
{
    io::Write::write_all(&mut to, bytes)
}

/// Whether standard output and standard error go to systemd's journal (systemd.exec(5), `JOURNAL_STREAM`).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

impl Journal {
    /// Of this process.
    pub(super) fn of_process() -> Self {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        Self {
            stdout: is_journal(&stream, &io::stdout()),
            stderr: is_journal(&stream, &io::stderr()),
        }
    }
}

/// Whether `fd` is what `stream` (device and inode with a colon between them) says. A process whose output was redirected since has the
/// variable as well.
#[cfg(unix)]
fn is_journal(stream: &str, fd: &impl std::os::fd::AsFd) -> bool {
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    nix::sys::stat::fstat(fd)
        .is_ok_and(|stat| stat.st_dev.to_string() == device && stat.st_ino.to_string() == inode)
}

#[cfg(not(unix))]
fn is_journal<T>(_stream: &str, _fd: &T) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let mut outlets = Standard::new(Some(LogFile::open(&path).expect("open")));
        let write = |outlets: &mut Standard, text: &str| {
            outlets
                .write(Output::File, text.as_bytes())
                .expect("written");
        };
        write(&mut outlets, "1");
        let old = dir.path().join("old");
        std::fs::rename(&path, &old).expect("rename");
        write(&mut outlets, "2");
        outlets.reopen().expect("reopen");
        write(&mut outlets, "3");
        assert_eq!(std::fs::read_to_string(&old).expect("old"), "12");
        assert_eq!(std::fs::read_to_string(&path).expect("new"), "3");
        // The directory has gone: the file stays.
        drop(dir);
        assert!(outlets.reopen().is_err());
        write(&mut outlets, "4");
    }

    /// Whoever started us may have left its end of a pipe non-blocking.
    #[test]
    fn a_stream_that_is_not_ready_is_waited_for() {
        let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("pair");
        far.set_nonblocking(true).expect("mode");
        let text = vec![b'x'; 4 << 20];
        let len = text.len();
        let writing = std::thread::spawn(move || write_all(&far, &text));
        let mut all = Vec::new();
        near.read_to_end(&mut all).expect("read");
        writing.join().expect("thread").expect("written");
        assert_eq!(all.len(), len);
    }

    #[test]
    fn the_journal_is_told_by_device_and_inode() {
        let file = tempfile::tempfile().expect("file");
        let meta = file.metadata().expect("metadata");
        let (device, inode) = (meta.dev(), meta.ino());
        assert!(is_journal(&format!("{device}:{inode}"), &file));
        for other in [
            String::new(),
            format!("{device}"),
            format!("{device}:{}", inode + 1),
            format!("{}:{inode}", device + 1),
        ] {
            assert!(!is_journal(&other, &file), "{other}");
        }
    }
}
