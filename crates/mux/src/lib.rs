//! Stream multiplexers: frames in, stream events out.
