//! Map GGUF model files and lend their tensors.
//!
//! Weights are used where they lie: [`ModelFile::open`] maps the file (all parts of a split model), and everything that
//! reads a tensor - kernels, uploads - reads the mapping through a [`TensorView`] or an owned [`WeightBytes`].
//!
//! # What a mapping cannot promise
//! The bytes belong to the file. A file that another program changes in place changes under the kernels: the numbers
//! become wrong, not the memory unsafe in practice (every bit pattern is a valid quantized block). On Windows the file
//! is opened so that others can read it only; it can be neither changed nor deleted while it is in use. On Unix:
//! - Deleting or replacing (rename) the file is harmless: the mapping keeps the old one.
//! - Truncating it, or unplugging its disk, makes pages unreadable. Linux then raises SIGBUS, which would end the
//!   program; here such pages read as zero instead and [`ModelFile::check`] says so (see `guard.rs`). On other systems
//!   than Linux (and on Windows, for an unplugged disk) the program does end: use [`Access::Read`] for such disks.

#![allow(unsafe_code)]

mod blocks;
mod direct;
mod error;
mod file;
#[cfg(target_os = "linux")]
mod guard;
mod loader;
mod open;
mod pager;
mod recent;
mod region;
mod sys;

pub use blocks::Block;
pub use error::WeightsError;
pub use file::{ModelFile, TensorView};
pub use loader::{Load, Loader};
pub use open::read_header;
pub use pager::{Pager, Ticket};
pub use recent::Recent;
pub use region::{Access, Pattern, WeightBytes};
