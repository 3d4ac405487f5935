//! The types of weights that products have kernels for.

use super::Run;
use crate::{Address, Driver};
use backend::BackendError;
use quant::GgmlType;
use quant::unpack::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};

/// The kernels of a type: matvec for one row and for four, matmul. Whether it meets rounded activations.
pub(super) struct Kernels {
    pub one: &'static str,
    pub four: &'static str,
    pub many: &'static str,
    pub packed: bool,
}

macro_rules! kernels {
    ($ty:expr, $($known:ident $name:literal $packed:literal)*) => {
        match $ty {
            $(GgmlType::$known => Some(Kernels {
                one: concat!("matvec_", $name, "_1"),
                four: concat!("matvec_", $name, "_4"),
                many: concat!("matmul_", $name),
                packed: $packed,
            }),)*
            _ => None,
        }
    };
}

pub(super) fn kernels(ty: GgmlType) -> Option<Kernels> {
    kernels!(ty,
        Q4_0 "q4_0" true Q4_1 "q4_1" true Q5_0 "q5_0" true Q5_1 "q5_1" true Q8_0 "q8_0" true
        Q2_K "q2_k" true Q3_K "q3_k" true Q4_K "q4_k" true Q5_K "q5_k" true Q6_K "q6_k" true
        IQ4_NL "iq4_nl" true IQ4_XS "iq4_xs" true MXFP4 "mxfp4" true NVFP4 "nvfp4" true
        IQ1_S "iq1_s" true IQ1_M "iq1_m" true IQ2_XXS "iq2_xxs" true IQ2_XS "iq2_xs" true IQ2_S "iq2_s" true
        IQ3_XXS "iq3_xxs" true IQ3_S "iq3_s" true
        TQ1_0 "tq1_0" true TQ2_0 "tq2_0" true Q1_0 "q1_0" true Q2_0 "q2_0" true
        F16 "f16" false BF16 "bf16" false F32 "f32" false
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
