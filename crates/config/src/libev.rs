//! kcptun-libev's configuration file and command line (docs/spec/kcptun-libev.md, sections 1 to 3 and 14.2).
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the typed model that the runtime takes |
//! | [`keys`] | the one table of keys: names, types, ranges, defaults, differences |
//! | [`args`] | the command line |
//!
//! Private: `load` (entry points), `file` (what the JSON says), `addr` (addresses and names of services), `psk` (base64), `resolve` (the checks), `lines` (what is in force).

mod addr;
pub mod args;
mod file;
pub mod keys;
mod lines;
mod load;
pub mod model;
mod psk;
mod resolve;

pub use args::{LibevArgs, LibevArgsError, LibevInvocation, libev_args, libev_usage};
pub use keys::{LIBEV_KEYS, LibevGroup, LibevKey, LibevKind};
pub use lines::{libev_brief, libev_lines, libev_lines_as};
pub use load::{
    AnyLoaded, Dialect, any_from_bytes, any_from_file, libev_from_bytes, libev_from_file, recognise,
};
pub use model::{
    Crypto, Explicit, HostPort, KcpSettings, LibevConfig, LibevLog, LibevRole, Mode, Obfs, Ours,
    Place, Port, Secret, Sink, TcpSettings, UdpSettings,
};
pub use psk::encode_psk;
pub use resolve::LibevLoaded;
