//! Attackers that speak the formats: every dialect and cipher, both senders.
//!
//! An *outsider* has no key: it sees what passes, sends it again, changed or not, from any address. A *member* has the key, as every
//! other user of the service, and lies. docs/design/security.md lists what each of them can do, by cipher, and names the test that
//! shows it.
//!
//! | module | what |
//! |---|---|
//! | [`setups`] | the table of dialects and ciphers |
//! | [`observer`] | somebody on the path |
//! | [`attacks`] | what it does, in small pieces |
//! | [`invariants`] | what holds all the same |
//! | [`outsider`], [`reflection`] | one attack at a time |
//! | [`credit`] | addresses that nobody is at, and moves |
//! | [`malleable`] | what flipping bits can do where nothing is authenticated |
//! | [`member`], [`frames`] | lies, and the frames that some of them are made of |
//! | [`memory`], [`stubs`] | what they can make a server hold |
//! | [`history`] | several at once, by seed |

pub(crate) mod attacks;
mod credit;
mod frames;
pub(crate) mod history;
pub(crate) mod invariants;
pub(crate) mod observer;
pub(crate) mod setups;

mod malleable;
mod member;
mod memory;
mod outsider;
mod reflection;
mod stubs;
