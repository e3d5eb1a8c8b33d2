//! One typed configuration model, with provenance, and a front end per syntax.
//!
//! Every syntax (a replaced program's flags, its JSON file, the environment of a shadowsocks plugin) is a
//! front end that yields the same [`Config`]; the checks live on that model and run before anything is opened.
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the typed model that the runtime takes |
//! | [`addr`] | addresses: `host:port`, Unix sockets, port ranges |
//! | [`origin`] | where a value came from |
#![forbid(unsafe_code)]

pub mod addr;
pub mod model;
pub mod origin;
pub mod secret;

pub use addr::{PortRange, StreamAddr};
pub use model::{
    Client, Config, Crypt, Kcptun, Log, Mode, Qpp, QppGeneration, Role, Server, Shards, Sip003,
    Smux, Stats,
};
pub use origin::{Origin, Program, Provenance};
pub use secret::Key;
