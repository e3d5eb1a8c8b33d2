//! GF(2^8): tables, matrices and kernels per CPU.
//!
//! The field of all erasure codes in use here (polynomial 0x11D, generator 2), the codes over it, and their
//! multiplication of shards by matrices as fast as the CPU can. It knows bytes and rows, nothing of packets.
//!
//! | module | what |
//! |---|---|
//! | [`field`] | products, inverses, powers |
//! | [`code`] | [`Code`]: coefficients of parity rows; [`Rebuild`]: of lost shards |
//! | [`plan`] | [`Plan`]: a matrix ready for a kernel; [`Rows`], [`RowsMut`]: what it is applied to |
//! | `arch` | [`Kernel`]: one per instruction set, chosen once |
//!
//! ```
//! use fulmar_gf256::{Code, Kernel, Rebuild, Rows, RowsMut};
//!
//! let code = Code::vandermonde(2, 1)?;
//! let mut shards = *b"stormpetrel....";
//! let (data, parity) = shards.split_at_mut(10);
//! let sink = RowsMut { bytes: parity, first: 0, stride: 5 };
//! code.encoding(Kernel::best()).apply(Rows { bytes: data, starts: &[0, 5] }, sink, 5);
//!
//! let mut rebuild = Rebuild::new(Kernel::best());
//! rebuild.prepare(&code, &[1, 2])?; // shard 0 is lost
//! let mut lost = [0; 5];
//! let sink = RowsMut { bytes: &mut lost, first: 0, stride: 5 };
//! rebuild.apply(Rows { bytes: &shards, starts: &[5, 10] }, sink, 5);
//! assert_eq!(&lost, b"storm");
//! # Ok::<(), fulmar_gf256::CodeError>(())
//! ```

mod arch;
pub mod code;
pub mod field;
pub mod plan;

pub use arch::Kernel;
pub use code::{Code, CodeError, MAX_SHARDS, Rebuild};
pub use plan::{Plan, Rows, RowsMut};
