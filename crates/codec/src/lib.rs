//! Byte-stream transformations: snappy framing and QPP.
