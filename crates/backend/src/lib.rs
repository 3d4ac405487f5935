//! The device interface: what the engine asks of a CPU, a GPU or a test device.
//!
//! A device owns buffers and runs operations on them in order. The engine's one decoder turns an architecture
//! description into a sequence of [`Op`]s; a device knows nothing of models, layers or files. Activations are always
//! f32, rows first; weights are ggml blocks; KV caches may be quantized.

pub mod check;
mod device;
mod error;
mod need;
mod ops;

pub use device::{BufferId, Device, DeviceKind, HostBytes, MemoryUse};
pub use error::BackendError;
pub use need::Need;
pub use ops::*;
