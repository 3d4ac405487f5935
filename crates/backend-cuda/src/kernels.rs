//! The kernels as PTX, which the driver compiles for its GPU.

/// PTX of one source file for each architecture.
struct Module {
    name: &'static str,
    compute_61: &'static str,
    compute_80: &'static str,
}

macro_rules! modules {
    ($($name:literal)*) => {
        &[$(Module {
            name: $name,
            compute_61: include_str!(concat!("../ptx/compute_61/", $name, ".ptx")),
            compute_80: include_str!(concat!("../ptx/compute_80/", $name, ".ptx")),
        }),*]
    };
}

static MODULES: &[Module] = modules!(
    "attention" "conv" "elementwise" "experts" "glu" "groups" "hadamard" "matmul" "matvec" "norm" "quantize" "recurrent" "rope" "rows" "store_kv" "streams"
);

/// The least compute capability that the kernels run on: dp4a came with it.
pub(crate) const LEAST_CAPABILITY: (i32, i32) = (6, 1);

/// What the PTX for compute_80 is for.
pub(crate) fn tensor_cores(capability: (i32, i32)) -> bool {
    capability >= (8, 0)
}

/// All modules.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    MODULES.iter().map(|module| module.name)
}

/// The PTX of a module for a GPU of this compute capability.
pub(crate) fn ptx(module: &str, capability: (i32, i32)) -> Option<&'static str> {
    let module = MODULES.iter().find(|known| known.name == module)?;
    match capability {
        capability if tensor_cores(capability) => Some(module.compute_80),
        capability if capability >= LEAST_CAPABILITY => Some(module.compute_61),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_fitting_code_is_taken() {
        for (capability, target) in [((6, 1), "sm_61"), ((7, 5), "sm_61"), ((8, 0), "sm_80"), ((12, 0), "sm_80")] {
            assert!(ptx("norm", capability).unwrap().contains(&format!(".target {target}")));
            let products = ptx("attention", capability).unwrap().contains("mma.sync");
            assert_eq!(products, tensor_cores(capability));
        }
        assert!(ptx("norm", (6, 0)).is_none() && ptx("nothing", (9, 0)).is_none());
    }
}
