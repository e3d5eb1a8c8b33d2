//! interop
fn main() {}
