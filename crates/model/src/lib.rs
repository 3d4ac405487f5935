//! Architecture descriptions from GGUF headers, and the byte layout that follows from them.
//!
//! Everything here is pure: a header in, a description out. The planner counts bytes with it before a download, the
//! engine allocates from the same count and runs its one decoder over the same description.

mod alt_up;
mod describe;
mod error;
mod families;
mod layout;
mod mixers;
mod offload;
mod parts;
mod placement;
mod residency;
mod rope;
mod rotation;
mod slots;
mod streaming;
mod tensors;

pub use alt_up::*;
pub use describe::describe;
pub use error::ModelError;
pub use families::supported_architectures;
pub use layout::{LayerBytes, Layout, LayoutParams, Parts, STATE_SLOTS, Totals};
pub use mixers::*;
pub use offload::{Lack, Offload};
pub use parts::*;
pub use placement::{MAX_ACCELERATORS, Place, Placement, Split};
pub use residency::{Piece, Residency};
pub use rotation::Rotation;
pub use slots::{BufferPlan, Slot};
pub use streaming::{STREAM_SLOTS, StreamRates, StreamSlot, Streaming};
