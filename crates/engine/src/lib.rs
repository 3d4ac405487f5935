//! Load, placement, sessions, the generation loop, cancel and recovery.

mod api;
mod error;

pub use api::*;
pub use error::EngineError;
