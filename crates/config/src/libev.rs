//! kcptun-libev's configuration file and command line (spec/kcptun-libev.md, sections 1 to 3 and 15.2).
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the typed model that the runtime takes |

pub mod model;

pub use model::{
    Crypto, Explicit, HostPort, KcpSettings, LibevConfig, LibevLog, LibevRole, Mode, Obfs, Ours,
    Place, Port, Secret, Sink, TcpSettings, UdpSettings,
};
