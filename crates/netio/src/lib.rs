//! UDP sockets in runs, and raw TCP segments.
