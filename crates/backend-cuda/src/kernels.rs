//! The kernels as PTX, which the driver compiles for its GPU. Programs have it compressed, by the build script.

use flate2::read::ZlibDecoder;
use std::io::Read;

/// What PTX there is. Later ones have more to compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// `dp4a`: GTX 10xx, and all that follows.
    Compute61,
    /// Tensor cores for signed bytes and f16: RTX 20xx, T4.
    Compute75,
    /// Larger products, and BF16: RTX 30xx and newer.
    Compute80,
}

impl Architecture {
    /// The newest that a GPU of this compute capability and name can use, and gains by.
    pub fn of(capability: (i32, i32), name: &str) -> Option<Architecture> {
        match capability {
            (8.., _) => Some(Architecture::Compute80),
            (7, 5..) if has_tensor_cores(name) => Some(Architecture::Compute75),
            capability if capability >= LEAST_CAPABILITY => Some(Architecture::Compute61),
            _ => None,
        }
    }

    /// As compilers call it.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Compute61 => "compute_61",
            Architecture::Compute75 => "compute_75",
            Architecture::Compute80 => "compute_80",
        }
    }

    /// Whether f16 and signed bytes are multiplied by tensor cores.
    pub fn tensor_cores(self) -> bool {
        self >= Architecture::Compute75
    }
}

/// Of GPUs of compute capability 7.5, those of the GTX 16 series and their relatives (MX450, T1000, ...) take the instructions of
/// tensor cores but have none, and are several times slower with them. No attribute tells; names do.
fn has_tensor_cores(name: &str) -> bool {
    const OTHERS: [&str; 4] = ["T4", "T4G", "T10", "T40"];
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| word.starts_with("RTX") || OTHERS.contains(&word))
}

/// PTX of one source file for each architecture, compressed.
struct Module {
    name: &'static str,
    compute_61: &'static [u8],
    compute_75: &'static [u8],
    compute_80: &'static [u8],
}

macro_rules! modules {
    ($($name:literal)*) => {
        &[$(Module {
            name: $name,
            compute_61: include_bytes!(concat!(env!("OUT_DIR"), "/compute_61/", $name, ".ptx")),
            compute_75: include_bytes!(concat!(env!("OUT_DIR"), "/compute_75/", $name, ".ptx")),
            compute_80: include_bytes!(concat!(env!("OUT_DIR"), "/compute_80/", $name, ".ptx")),
        }),*]
    };
}

static MODULES: &[Module] = modules!(
    "attention" "conv" "elementwise" "experts" "glu" "groups" "hadamard" "heads" "matmul" "matvec" "norm" "quantize" "recurrent" "rows" "store_kv" "streams"
);

/// The least compute capability that the kernels run on: dp4a came with it.
pub(crate) const LEAST_CAPABILITY: (i32, i32) = (6, 1);

/// All modules.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    MODULES.iter().map(|module| module.name)
}

/// The PTX of a module.
pub(crate) fn ptx(module: &str, architecture: Architecture) -> Option<String> {
    let module = MODULES.iter().find(|known| known.name == module)?;
    let packed = match architecture {
        Architecture::Compute61 => module.compute_61,
        Architecture::Compute75 => module.compute_75,
        Architecture::Compute80 => module.compute_80,
    };
    let mut ptx = String::new();
    ZlibDecoder::new(packed).read_to_string(&mut ptx).ok()?;
    Some(ptx)
}

#[cfg(test)]
mod tests {
    use super::Architecture::{Compute61, Compute75, Compute80};
    use super::*;

    #[test]
    fn the_newest_fitting_code_is_taken() {
        for (capability, name, expected) in [
            ((6, 0), "Tesla P100-PCIE-16GB", None),
            ((6, 1), "NVIDIA GeForce GTX 1080", Some(Compute61)),
            ((7, 0), "Tesla V100-SXM2-16GB", Some(Compute61)),
            ((7, 2), "Xavier", Some(Compute61)),
            ((7, 5), "NVIDIA GeForce RTX 2060", Some(Compute75)),
            ((7, 5), "NVIDIA TITAN RTX", Some(Compute75)),
            ((7, 5), "Quadro RTX 5000 with Max-Q Design", Some(Compute75)),
            ((7, 5), "GRID RTX6000-4Q", Some(Compute75)),
            ((7, 5), "Tesla T4", Some(Compute75)),
            ((7, 5), "GRID T4-16Q", Some(Compute75)),
            ((7, 5), "NVIDIA GeForce GTX 1660 Ti", Some(Compute61)),
            ((7, 5), "NVIDIA GeForce GTX 1650", Some(Compute61)),
            ((7, 5), "NVIDIA GeForce MX450", Some(Compute61)),
            ((7, 5), "NVIDIA T400 4GB", Some(Compute61)),
            ((7, 5), "Quadro T1000", Some(Compute61)),
            ((8, 0), "NVIDIA A100-SXM4-40GB", Some(Compute80)),
            ((8, 6), "NVIDIA GeForce RTX 2050", Some(Compute80)),
            ((12, 0), "NVIDIA GeForce RTX 5090", Some(Compute80)),
        ] {
            assert_eq!(Architecture::of(capability, name), expected, "{name}");
        }
    }

    #[test]
    fn code_is_for_its_architecture() {
        for (architecture, target) in [(Compute61, "sm_61"), (Compute75, "sm_75"), (Compute80, "sm_80")] {
            for module in names() {
                assert!(ptx(module, architecture).unwrap().contains(&format!(".target {target}\n")), "{module}");
            }
            for module in ["attention", "matmul", "matvec"] {
                let products = ptx(module, architecture).unwrap().contains("mma.sync");
                assert_eq!(products, architecture.tensor_cores(), "{module}");
            }
        }
        assert!(ptx("nothing", Compute80).is_none());
    }
}
