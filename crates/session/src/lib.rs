//! Composes cipher, FEC, ARQ, codec and mux into one pipeline per dialect.
