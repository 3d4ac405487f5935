//! `fake-hub`: serves a folder of GGUF files as if it were the Hugging Face Hub; for end-to-end tests.
//!
//! Prints its address (for HF_ENDPOINT) as the first line and serves until it is ended.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use fake_hub::FakeHub;

#[derive(Parser)]
struct Args {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Repositories as DIR/owner/name/...; with --repo the files lie in DIR itself
    #[arg(long)]
    dir: PathBuf,
    /// Serve DIR as this one repository (owner/name)
    #[arg(long)]
    repo: Option<String>,
    /// Cut the connection once, when the storage has sent this many bytes in all (can be given several times)
    #[arg(long)]
    cut_after: Vec<u64>,
    /// Bytes per second, over all connections
    #[arg(long)]
    rate: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let hub = FakeHub::start_on(args.port).context("cannot listen on 127.0.0.1")?;
    match &args.repo {
        Some(repo) => add_tree(&hub, repo, &args.dir, &args.dir)?,
        None => {
            for owner in folders(&args.dir)? {
                for folder in folders(&owner)? {
                    let repo = folder.strip_prefix(&args.dir)?.to_string_lossy().replace('\\', "/");
                    add_tree(&hub, &repo, &folder, &folder)?;
                }
            }
        }
    }
    let mut cuts = args.cut_after;
    cuts.sort_unstable();
    hub.faults(|f| {
        f.cuts = cuts.into();
        f.bytes_per_second = args.rate;
    });
    println!("{}", hub.endpoint());
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = read.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

fn folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|p| p.is_dir()).collect())
}

fn add_tree(hub: &FakeHub, repo: &str, root: &Path, folder: &Path) -> anyhow::Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            add_tree(hub, repo, root, &path)?;
        } else {
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            hub.add_disk_file(repo, &name, path.clone()).with_context(|| format!("cannot read {}", path.display()))?;
        }
    }
    Ok(())
}
