//! (format: kcp)
