//! Load, placement, sessions, the generation loop, cancel and recovery.

mod alt_up;
mod api;
mod attention;
mod checkpoint;
mod checksum;
mod choice;
mod core;
mod decoder;
mod engine;
mod error;
mod expert_paging;
mod feed_forward;
mod file;
mod generate;
mod input;
mod latent;
mod masks;
mod ops;
mod paging;
mod placing;
mod recurrent;
mod saved;
mod shift;
mod site;
mod sites;
mod speculate;
mod streaming;
mod transfer;
mod trial;

pub use api::*;
pub use backend::{BackendError, Device};
pub use engine::{Engine, Positions};
pub use error::{EngineError, SavedError};
pub use model::{MAX_ACCELERATORS, Place, Split};
pub use saved::Remembered;
pub use speculate::{VOCABULARY_PADDING, same_vocabulary};
