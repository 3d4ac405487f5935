//! Compresses the PTX: as text it is most of a program.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var("OUT_DIR")?;
    for architecture in ["compute_61", "compute_75", "compute_80"] {
        let to = Path::new(&out).join(architecture);
        fs::create_dir_all(&to)?;
        println!("cargo::rerun-if-changed=ptx/{architecture}");
        for file in fs::read_dir(Path::new("ptx").join(architecture))? {
            let file = file?.path();
            let name = file.file_name().ok_or("a file has a name")?;
            let mut packed = ZlibEncoder::new(fs::File::create(to.join(name))?, Compression::default());
            packed.write_all(&fs::read(&file)?)?;
            packed.finish()?;
        }
    }
    Ok(())
}
