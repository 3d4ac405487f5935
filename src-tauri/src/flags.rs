use clap::{CommandFactory, Parser};
use std::path::{Path, PathBuf};

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
    /// Write the page of the manual into this folder, for packages
    #[arg(long, value_name = "DIR", hide = true)]
    pub man: Option<PathBuf>,
}

/// The page of the manual.
pub fn man(folder: &Path) -> std::io::Result<()> {
    clap_mangen::generate_to(Flags::command(), folder)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_manual_has_every_flag() {
        let folder = tempfile::tempdir().unwrap();
        super::man(folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("headroom-desktop.1")).unwrap().replace('\\', "");
        for flag in ["MODEL.gguf", "--demo", "--data-dir", "--test-device", "--no-gpu", "--endpoint", "--automation"] {
            assert!(page.contains(flag), "{flag}: {page}");
        }
    }
}
