use quant::GgmlType;

/// Why a device could not do what it was asked. The engine acts on the variant, never on the text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// The device has no room: move layers off it, or lower the context, and go on.
    #[error("{device} has no room for {needed} bytes ({free} bytes are free)")]
    OutOfMemory { device: String, needed: u64, free: u64 },
    /// The device is gone (driver reset, unplugged): everything on it is lost.
    #[error("{device} was lost: {detail}")]
    Lost { device: String, detail: String },
    /// The device has no kernel for this.
    #[error("{device} cannot run {op} on {ty}")]
    Unsupported { device: String, op: &'static str, ty: GgmlType },
    /// An operation's shapes or buffers do not fit each other: a bug in the caller.
    #[error("invalid {op}: {detail}")]
    Invalid { op: &'static str, detail: String },
}
