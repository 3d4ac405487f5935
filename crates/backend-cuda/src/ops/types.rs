//! The types of weights that products have kernels for.

use super::Run;
use crate::{Address, Driver};
use backend::BackendError;
use quant::GgmlType;
use quant::unpack::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};

/// The kernels of a type: matvec for one row and for four, matmul in small tiles and, with tensor cores, in large ones, where
/// it has them. Whether it meets rounded activations.
pub(super) struct Kernels {
    pub one: &'static str,
    pub four: &'static str,
    pub many: &'static str,
    pub large: Option<&'static str>,
    pub packed: bool,
}

macro_rules! kernels {
    ($ty:expr, $($known:ident $name:literal $packed:literal $large:literal)*) => {
        match $ty {
            $(GgmlType::$known => Some(Kernels {
                one: concat!("matvec_", $name, "_1"),
                four: concat!("matvec_", $name, "_4"),
                many: concat!("matmul_", $name, "_32"),
                large: if $large { Some(concat!("matmul_", $name, "_64")) } else { None },
                packed: $packed,
            }),)*
            _ => None,
        }
    };
}

pub(super) fn kernels(ty: GgmlType) -> Option<Kernels> {
    kernels!(ty,
        Q4_0 "q4_0" true true Q4_1 "q4_1" true true Q5_0 "q5_0" true true Q5_1 "q5_1" true true Q8_0 "q8_0" true true
        Q2_K "q2_k" true true Q3_K "q3_k" true true Q4_K "q4_k" true true Q5_K "q5_k" true true Q6_K "q6_k" true true
        IQ4_NL "iq4_nl" true true IQ4_XS "iq4_xs" true true MXFP4 "mxfp4" true true NVFP4 "nvfp4" true true
        IQ1_S "iq1_s" true true IQ1_M "iq1_m" true true IQ2_XXS "iq2_xxs" true true IQ2_XS "iq2_xs" true true IQ2_S "iq2_s" true true
        IQ3_XXS "iq3_xxs" true true IQ3_S "iq3_s" true true
        TQ1_0 "tq1_0" true true TQ2_0 "tq2_0" true true Q1_0 "q1_0" true true Q2_0 "q2_0" true true
        F16 "f16" false true BF16 "bf16" false true F32 "f32" false false
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
