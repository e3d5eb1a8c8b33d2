//! The socket of the service manager, on systems without: nobody asks to be told.

use std::io;

/// There is none.
///
/// # Errors
/// Always.
pub(super) fn monotonic_us() -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing to do.
///
/// # Errors
/// None.
pub(super) fn tell(_text: &str) -> io::Result<()> {
    Ok(())
}
