//! Forward error correction: grouping, recovery, auto-tuning.
