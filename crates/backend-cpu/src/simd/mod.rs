//! Vector kernels: one algorithm over a small vector interface, instantiated for each instruction set and chosen at run
//! time. The scalar twin of every kernel is in `scalar`; tests compare them.

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod cells;
pub mod packed;
mod portable;
mod scalar;
pub(crate) mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_tiles;

use cells::Cells;
pub use portable::exp;
use quant::{GgmlType, QuantError};

/// Asks for the cache lines of bytes that will be read or written. It is no fault where there are none.
#[inline(always)]
pub(crate) fn prefetch(start: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching is allowed at any address, and every x86-64 has the instruction.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = start.wrapping_add(line);
    }
}

/// Instruction sets that kernels exist for; those of one architecture worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimdLevel {
    /// What the compiler makes of plain Rust: the twin of all others.
    Scalar,
    /// AVX2, FMA, F16C
    Avx2,
    /// And AVX-VNNI
    AvxVnni,
    /// AVX-512 F, BW, VL and VNNI
    Avx512Vnni,
    /// What every AArch64 has
    Neon,
    /// NEON and dotprod
    NeonDot,
    /// And i8mm
    NeonI8mm,
}

impl SimdLevel {
    pub const ALL: [SimdLevel; 7] = [
        SimdLevel::Scalar,
        SimdLevel::Avx2,
        SimdLevel::AvxVnni,
        SimdLevel::Avx512Vnni,
        SimdLevel::Neon,
        SimdLevel::NeonDot,
        SimdLevel::NeonI8mm,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            SimdLevel::Scalar if cfg!(target_arch = "x86_64") => "SSE2",
            SimdLevel::Scalar => "plain instructions",
            SimdLevel::Avx2 => "AVX2",
            SimdLevel::AvxVnni => "AVX-VNNI",
            SimdLevel::Avx512Vnni => "AVX-512 VNNI",
            SimdLevel::Neon => "NEON",
            SimdLevel::NeonDot => "NEON dotprod",
            SimdLevel::NeonI8mm => "NEON i8mm",
        }
    }
}

/// Proof that this CPU has the instructions: it can only be made by asking the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Simd(SimdLevel);

impl Simd {
    /// The best that this CPU has.
    pub fn best() -> Simd {
        SimdLevel::ALL.into_iter().rev().find_map(Simd::with).unwrap_or(Simd(SimdLevel::Scalar))
    }

    /// This level, if the CPU has it.
    pub fn with(level: SimdLevel) -> Option<Simd> {
        let present = match level {
            SimdLevel::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            SimdLevel::AvxVnni => Simd::with(SimdLevel::Avx2).is_some() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512Vnni => {
                Simd::with(SimdLevel::Avx2).is_some()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon => true,
            #[cfg(target_arch = "aarch64")]
            SimdLevel::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            SimdLevel::NeonI8mm => {
                Simd::with(SimdLevel::NeonDot).is_some() && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            // Of another architecture.
            _ => false,
        };
        present.then_some(Simd(level))
    }

    pub fn level(self) -> SimdLevel {
        self.0
    }

    /// Sum of products.
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        match self.0 {
            SimdLevel::Scalar => scalar::dot(a, b),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the lengths are equal.
            _ => unsafe { x86::dot_avx2(a, b) },
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon | SimdLevel::NeonDot | SimdLevel::NeonI8mm => aarch64::dot(a, b),
            #[cfg(not(target_arch = "x86_64"))]
            _ => scalar::dot(a, b),
        }
    }

    /// `y += a * x`
    pub fn axpy(self, a: f32, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        match self.0 {
            SimdLevel::Scalar => portable::axpy(a, x, y),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::axpy_avx2(a, x, y) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::axpy(a, x, y),
        }
    }

    /// `x = exp(x - max)`; the sum of the results, in a fixed order.
    pub fn exp_minus(self, x: &mut [f32], max: f32) -> f32 {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { x86::exp_minus_avx2(x, max) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::exp_minus_avx512(x, max) },
            _ => portable::exp_minus::<8>(x, max),
        }
    }

    /// `x = cap * tanh(x / cap)`, to about 2^-22 of the cap.
    pub(crate) fn softcap(self, x: &mut [f32], cap: f32) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 => unsafe { x86::softcap_avx2(x, cap) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::softcap_avx512(x, cap) },
            _ => portable::softcap(x, cap),
        }
    }

    /// The largest of `least` and the numbers of `x`; what is no number is passed over.
    pub fn max(self, x: &[f32], least: f32) -> f32 {
        match self.0 {
            SimdLevel::Scalar => portable::max(x, least),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::max_avx2(x, least) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::max(x, least),
        }
    }

    /// `x *= factor`
    pub fn scale(self, x: &mut [f32], factor: f32) {
        match self.0 {
            SimdLevel::Scalar => portable::scale(x, factor),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::scale_avx2(x, factor) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::scale(x, factor),
        }
    }

    /// `gate = silu(gate) * up`
    pub fn swiglu(self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { x86::swiglu_avx2(gate, up) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::swiglu_avx512(gate, up) },
            _ => portable::swiglu(gate, up),
        }
    }

    /// The sum of squared distances from `mean`, in a fixed order.
    pub(crate) fn squares(self, x: &[f32], mean: f64) -> f64 {
        match self.0 {
            SimdLevel::Scalar => portable::squares(x, mean),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::squares_avx2(x, mean) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::squares(x, mean),
        }
    }

    /// `out = (x - mean) * factor * weight + bias`, `by` being mean and factor.
    pub(crate) fn normalize(
        self,
        x: &[f32],
        by: [f32; 2],
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) {
        match self.0 {
            SimdLevel::Scalar => portable::normalize(x, by, weight, bias, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::normalize_avx2(x, by, weight, bias, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::normalize(x, by, weight, bias, out),
        }
    }

    /// A row for a cache: the same bits as [`quant::quantize_cache_row`].
    ///
    /// # Errors
    /// As there.
    pub fn quantize_cache_row(self, ty: GgmlType, x: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
        if ty == GgmlType::F16
            && let Ok(narrow) = bytemuck::try_cast_slice_mut(out)
            && narrow.len() == x.len()
        {
            self.narrow_f16(x, narrow);
            return Ok(());
        }
        quant::quantize_cache_row(ty, x, out)
    }

    /// f32 to f16 bits.
    fn narrow_f16(self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len());
        match self.0 {
            SimdLevel::Scalar => portable::narrow_f16(x, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the lengths are equal.
            _ => unsafe { x86::narrow_f16_avx2(x, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::narrow_f16(x, out),
        }
    }

    /// `c += a b`. The order of each sum is that of `k`, so a row's result is that of the row alone.
    pub(crate) fn product(self, p: &tiles::Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
        assert!(p.fits(a, b, c));
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the slices hold the matrices.
            SimdLevel::Avx512Vnni => unsafe { x86_tiles::product_avx512(p, a, b, c) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { x86_tiles::product_avx2(p, a, b, c) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the slices hold the matrices.
            SimdLevel::Neon | SimdLevel::NeonDot | SimdLevel::NeonI8mm => unsafe { aarch64::product(p, a, b, c) },
            // SAFETY: no special instructions; the slices hold the matrices.
            _ => unsafe { tiles::product::<[f32; 4], 2>(p, a, b, c) },
        }
    }

    /// `c = a b`^T, of which `b` has rows of the same length as `a` and a multiple of four of them. The order of each sum
    /// does not depend on the other rows.
    pub(crate) fn dots(self, p: &tiles::Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
        assert!(p.fits_dots(a, b, c));
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the slices hold the matrices.
            SimdLevel::Avx512Vnni => unsafe { x86_tiles::dots_avx512(p, a, b, c) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { x86_tiles::dots_avx2(p, a, b, c) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the slices hold the matrices.
            SimdLevel::Neon | SimdLevel::NeonDot | SimdLevel::NeonI8mm => unsafe { aarch64::dots(p, a, b, c) },
            // SAFETY: no special instructions; the slices hold the matrices.
            _ => unsafe { tiles::dots::<[f32; 4], 2>(p, a, b, c) },
        }
    }

    /// A row of any type as f32: the same bits as [`quant::dequantize_row`].
    ///
    /// # Errors
    /// As there.
    pub fn dequantize(self, ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
        if ty.row_bytes(out.len()) == Some(bytes.len()) {
            if ty == GgmlType::F16
                && let Ok(narrow) = bytemuck::try_cast_slice(bytes)
            {
                self.widen_f16(narrow, out);
                return Ok(());
            }
            if self.dequantize_narrow(ty, bytes, out) {
                return Ok(());
            }
        }
        quant::dequantize_row(ty, bytes, out)
    }

    /// The orthonormal Walsh-Hadamard transform of `x`, whose length is a power of two.
    pub fn hadamard(self, x: &mut [f32]) {
        assert!(x.len().is_power_of_two());
        match self.0 {
            SimdLevel::Scalar => portable::hadamard(x),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::hadamard_avx2(x) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::hadamard(x),
        }
    }

    /// f16 bits to f32.
    pub fn widen_f16(self, x: &[u16], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the lengths are equal.
            SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { x86::widen_f16_avx2(x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::widen_f16_avx512(x, out) },
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon | SimdLevel::NeonDot | SimdLevel::NeonI8mm => aarch64::widen_f16(x, out),
            _ => portable::widen_f16(x, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_cpu() {
        let here: Vec<SimdLevel> = SimdLevel::ALL.into_iter().filter(|level| Simd::with(*level).is_some()).collect();
        assert_eq!(here[0], SimdLevel::Scalar);
        assert_eq!(here.last(), Some(&Simd::best().level()));
        assert_eq!(here.contains(&SimdLevel::Neon), cfg!(target_arch = "aarch64"));
        // Set where the CPU is an emulated one, so that no level is tested by nobody.
        let emulated = match std::env::var("HEADROOM_EMULATED_CPU").as_deref() {
            Ok("max") => SimdLevel::NeonI8mm,
            Ok("cortex-a76") => SimdLevel::NeonDot,
            Ok(_) => SimdLevel::Neon,
            Err(_) => return,
        };
        assert_eq!(Simd::best().level(), emulated);
    }
}
