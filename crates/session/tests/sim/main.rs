//! The simulator: whole client-server pairs in virtual time, joined by the network emulator.
//!
//! Endpoints are driven by their contract (see [`fulmar_session::endpoint`]) and applications on their streams
//! check every byte. Everything random comes from one seed per scenario: the same seed is the same storm. A failure
//! names its seed; `FULMAR_SIM_SEED=<seed>` runs every scenario with that one seed alone, `FULMAR_SIM_SEEDS=<n>` with
//! seeds 1 to `n`.
//!
//! | module | what |
//! |---|---|
//! | [`harness`] | endpoints, network and clock |
//! | [`apps`] | what applications do on streams |
//! | [`setup`] | settings of both ends |
//! | [`snapshot`] | tables that are committed, and how much they may change |
//! | [`raw`] | a peer that says whatever a test wants |

mod apps;
mod auto_invariants;
mod auto_tables;
mod harness;
mod path;
mod raw;
mod setup;
mod snapshot;

mod addresses;
mod admission;
mod adversary;
mod first;
mod golden;
mod hostile;
mod idle;
mod libev;
mod links;
mod liveness;
mod matrix;
mod mismatch;
mod sharing;
mod sleep;
mod storm;
mod streams;
mod table;
