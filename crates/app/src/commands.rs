//! One file per command; each returns how the program is to end.

mod check;
mod demo;
mod genpsk;
mod libev;
mod man;
mod opening;
mod shell;
mod tunnel;

pub(crate) use check::check;
pub(crate) use demo::demo;
pub(crate) use genpsk::genpsk;
pub(crate) use libev::persona as kcptun_libev;
pub(crate) use man::man;
pub(crate) use shell::{completions, version};
pub(crate) use tunnel::{kcptun, run, tunnel};
