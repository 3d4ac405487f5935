use clap::Parser;
use std::path::PathBuf;

/// Large language models on PCs short of memory.
#[derive(Clone, Debug, Parser)]
#[command(name = "headroom-desktop", version)]
pub struct Flags {
    /// Show this model, ready to be loaded
    #[arg(value_name = "MODEL.gguf")]
    pub file: Option<PathBuf>,
    /// Open with this model loaded and a chat
    #[arg(long, value_name = "MODEL.gguf")]
    pub demo: Option<PathBuf>,
    /// Keep settings, chats and models in this folder
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Offer a test device that takes layers, with so many bytes of memory
    #[arg(long, value_name = "BYTES")]
    pub test_device: Option<u64>,
    /// Let the test device find no room for the operation after so many (for tests)
    #[arg(long, value_name = "N", requires = "test_device")]
    pub test_device_fails: Option<u64>,
    /// Leave the GPU alone: everything runs on the CPU
    #[arg(long)]
    pub no_gpu: bool,
    /// Address of the Hub; comes before the settings and HF_ENDPOINT
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Let a WebDriver control the window (for tests)
    #[arg(long)]
    pub automation: bool,
}
