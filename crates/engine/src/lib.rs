//! Load, placement, sessions, the generation loop, cancel and recovery.

mod api;
mod core;
mod decoder;
mod engine;
mod error;
mod file;
mod generate;
mod site;

pub use api::*;
pub use backend::{BackendError, Device};
pub use engine::{Engine, Positions};
pub use error::EngineError;
