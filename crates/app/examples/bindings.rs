//! Rewrites `ui/src/ipc/bindings.ts` from the wire types.

fn main() -> std::io::Result<()> {
    let path = app::wire::bindings::path();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, app::wire::bindings::typescript())
}
