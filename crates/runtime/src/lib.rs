//! Tokio glue: drivers, listeners, name lookup, shutdown.
