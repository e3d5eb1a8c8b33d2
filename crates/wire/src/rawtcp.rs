//! (format: rawtcp)
