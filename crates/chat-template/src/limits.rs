//! Bounds on what a template, which comes with a downloaded file, may cost.

use std::time::Duration;

/// Bounds on one template and one rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest template source, in bytes. The largest one in use today has 17 KB.
    pub source_bytes: usize,
    /// Engine steps for any conversation; one step also pays for 64 bytes of text made.
    pub fuel: u64,
    /// Further steps for every byte of the conversation.
    pub fuel_per_input_byte: u64,
    /// All of it at most: 64 bytes of text for each step are the most memory that a rendering takes.
    pub most_fuel: u64,
    /// The longest that a rendering may take. Some operations of the engine cost more time than they pay for.
    pub time: Duration,
    /// Largest prompt, in bytes.
    pub output_bytes: usize,
    /// Deepest nesting of lists and mappings, in the input and in what a template prints.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_bytes: 256 << 10,
            fuel: 1_000_000,
            fuel_per_input_byte: 16,
            most_fuel: 32_000_000,
            time: Duration::from_secs(20),
            output_bytes: 64 << 20,
            depth: 100,
        }
    }
}
