//! Models to smaller types. The rules for which tensor gets which type are pure ([`Mix`], [`Plan`]); [`Job`] streams a
//! model through the quantizers tensor by tensor, so that memory is bounded whatever its size.
//!
//! [`Recorder`] measures which columns of a matrix matter, for an [`Imatrix`].
//!
//! Which tensors get more bits is what llama.cpp does: files made here have the types of files made there.

mod convert;
mod draft;
mod error;
mod imatrix;
mod job;
mod mix;
mod plan;
mod recorder;
mod rules;
mod shape;

pub use error::QuantizeError;
pub use imatrix::Imatrix;
pub use job::{Job, Progress, Report};
pub use mix::Mix;
pub use plan::{Plan, Step};
pub use recorder::{Measured, Measurement, Recorder};
