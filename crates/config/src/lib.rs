//! Typed configuration models, with provenance, and a front end per syntax.
//!
//! kcptun's syntaxes (flags, JSON file, TOML with the same keys, the environment of a shadowsocks plugin) are front ends that
//! yield the same [`Config`]; kcptun-libev's files yield a [`LibevConfig`]. The checks live on the models and run before
//! anything is opened.
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the typed model that the runtime takes |
//! | [`libev`] | kcptun-libev's model, file and command line |
//! | [`addr`] | addresses: `host:port`, Unix sockets, port ranges |
//! | [`origin`] | where a value came from |
//! | [`problem`] | what is wrong, where, and what to write instead |
//! | [`options`] | the one table of options: names, types, ranges, defaults, help |
//! | [`load`] | entry points: a command line, a file, or a plugin's environment becomes a [`Config`] |
//! | [`report`] | what is in force, for the log at start |
//! | [`golang`], [`gotime`] | Go's integers, booleans and time layouts |
//! | [`localtime`] | the local time that layouts and log lines show |
//! | [`hint`] | "did you mean" |
//! | [`text`] | text of others as it appears in messages |
//!
//! Private: `argv`, `kcptun_file` (with `json` and `kcptun_toml`), `sip003` (front ends), `services` (names of ports), `values` (what they write into), `resolve` (the checks).
#![forbid(unsafe_code)]

pub mod addr;
mod argv;
pub mod golang;
pub mod gotime;
pub mod hint;
mod json;
mod kcptun_file;
mod kcptun_toml;
pub mod libev;
pub mod load;
pub mod localtime;
pub mod model;
pub mod options;
pub mod origin;
pub mod problem;
pub mod report;
mod resolve;
pub mod secret;
mod services;
mod sip003;
mod strength;
pub mod text;
mod values;

pub use addr::{PortRange, StreamAddr};
pub use libev::{
    AnyLoaded, Dialect, LibevArgs, LibevConfig, LibevInvocation, LibevLoaded, LibevRole,
    any_from_bytes, any_from_file, libev_args, libev_from_bytes, libev_from_file, recognise,
};
pub use load::{Environment, Invocation, from_args, from_bytes, from_file, plugin_side, side_of};
pub use model::{
    Auto, Client, Compat, Config, Crypt, First, Kcptun, Log, Mode, Qpp, QppGeneration, Role,
    Server, Shards, Smux, Stats,
};
pub use options::Side;
pub use origin::{Origin, Program, Provenance};
pub use problem::{Failure, Place, Problem, Severity};
pub use resolve::Loaded;
pub use secret::{Key, Psk};
