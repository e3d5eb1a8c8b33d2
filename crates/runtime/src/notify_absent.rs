//! Telling systemd how far the program is, on systems without: nothing to do.

use std::io;

/// The program runs.
///
/// # Errors
/// None.
pub fn ready() -> io::Result<()> {
    Ok(())
}

/// It reads its configuration again.
///
/// # Errors
/// None.
pub fn reloading() -> io::Result<()> {
    Ok(())
}

/// It ends.
///
/// # Errors
/// None.
pub fn stopping() -> io::Result<()> {
    Ok(())
}
