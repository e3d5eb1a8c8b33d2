//! (format: fec)
/// Bytes of the FEC header.
pub const HEADER_LEN: usize = 8;
