//! The types of weights that products have kernels for.

use super::Run;
use crate::{Address, Architecture, Driver};
use backend::BackendError;
use quant::GgmlType;
use quant::unpack::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};

/// The kernels of a type: matvec for one row and for four, matmul in small tiles and in large ones, where it has them, from the
/// architecture on whose tensor cores multiply it. Whether it meets rounded activations.
pub(super) struct Kernels {
    pub one: &'static str,
    pub four: &'static str,
    pub many: &'static str,
    pub large: Option<(Architecture, &'static str)>,
    pub packed: bool,
}

macro_rules! kernels {
    ($ty:expr, $($known:ident $name:literal $packed:literal $large:ident)*) => {
        match $ty {
            $(GgmlType::$known => Some(Kernels {
                one: concat!("matvec_", $name, "_1"),
                four: concat!("matvec_", $name, "_4"),
                many: concat!("matmul_", $name, "_32"),
                large: $large.map(|from| (from, concat!("matmul_", $name, "_64"))),
                packed: $packed,
            }),)*
            _ => None,
        }
    };
}

pub(super) fn kernels(ty: GgmlType) -> Option<Kernels> {
    const NEVER: Option<Architecture> = None;
    const TURING: Option<Architecture> = Some(Architecture::Compute75);
    const AMPERE: Option<Architecture> = Some(Architecture::Compute80);
    kernels!(ty,
        Q4_0 "q4_0" true TURING Q4_1 "q4_1" true TURING Q5_0 "q5_0" true TURING Q5_1 "q5_1" true TURING Q8_0 "q8_0" true TURING
        Q2_K "q2_k" true TURING Q3_K "q3_k" true TURING Q4_K "q4_k" true TURING Q5_K "q5_k" true TURING Q6_K "q6_k" true TURING
        IQ4_NL "iq4_nl" true TURING IQ4_XS "iq4_xs" true TURING MXFP4 "mxfp4" true TURING NVFP4 "nvfp4" true TURING
        IQ1_S "iq1_s" true TURING IQ1_M "iq1_m" true TURING IQ2_XXS "iq2_xxs" true TURING IQ2_XS "iq2_xs" true TURING
        IQ2_S "iq2_s" true TURING IQ3_XXS "iq3_xxs" true TURING IQ3_S "iq3_s" true TURING
        TQ1_0 "tq1_0" true TURING TQ2_0 "tq2_0" true TURING Q1_0 "q1_0" true TURING Q2_0 "q2_0" true TURING
        F16 "f16" false TURING BF16 "bf16" false AMPERE F32 "f32" false NEVER
    )
}

/// The points of a type whose weights are indices into a table.
fn lattice(ty: GgmlType) -> Option<&'static [u8]> {
    Some(match ty {
        GgmlType::IQ1_S | GgmlType::IQ1_M => bytemuck::cast_slice(&IQ1_GRID),
        GgmlType::IQ2_XXS => bytemuck::cast_slice(&IQ2_XXS_GRID),
        GgmlType::IQ2_XS => bytemuck::cast_slice(&IQ2_XS_GRID),
        GgmlType::IQ2_S => bytemuck::cast_slice(&IQ2_S_GRID),
        GgmlType::IQ3_XXS => bytemuck::cast_slice(&IQ3_XXS_GRID),
        GgmlType::IQ3_S => bytemuck::cast_slice(&IQ3_S_GRID),
        _ => return None,
    })
}

/// Where a type's table lies in the GPU's memory, or 0 if it has none.
pub(super) fn table<D: Driver>(run: &mut Run<'_, D>, ty: GgmlType) -> Result<Address, BackendError> {
    let Some(points) = lattice(ty) else { return Ok(0) };
    let key = points.as_ptr();
    if let Some((_, address)) = run.scratch.lattices.iter().find(|(known, _)| std::ptr::eq(known.as_ptr(), key)) {
        return Ok(*address);
    }
    let address = run.gpu.table(points)?;
    run.scratch.lattices.push((points, address));
    Ok(address)
}
