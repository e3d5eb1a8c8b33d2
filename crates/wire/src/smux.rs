//! (format: smux)
