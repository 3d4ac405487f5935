//! Vector kernels: one algorithm over a small vector interface, instantiated for each instruction set and chosen at run
//! time. The scalar twin of every kernel is in `scalar`; tests compare them.

mod portable;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::exp;

/// Instruction sets that kernels exist for, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimdLevel {
    /// What the compiler makes of plain Rust (on AArch64: NEON).
    Scalar,
    /// AVX2, FMA, F16C
    Avx2,
    /// AVX-512 F, BW, VL and VNNI, used on 256-bit vectors
    Avx512Vnni,
}

impl SimdLevel {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            SimdLevel::Scalar => {
                if cfg!(target_arch = "aarch64") {
                    "NEON"
                } else {
                    "SSE2"
                }
            }
            SimdLevel::Avx2 => "AVX2",
            SimdLevel::Avx512Vnni => "AVX-512 VNNI",
        }
    }
}

/// Proof that this CPU has the instructions: it can only be made by asking the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Simd(SimdLevel);

/// A row of weights as small integers with scales: value `j` is `q[j] * scales[j / 16] - mins[j / 16]`.
#[derive(Clone, Copy)]
pub struct WeightRow<'a> {
    /// [cols], a multiple of 32
    pub q: &'a [i8],
    /// [cols / 16]
    pub scales: &'a [f32],
    /// [cols / 16], or empty where there are no offsets
    pub mins: &'a [f32],
}

/// A row of activations rounded to 8 bits: value `j` is about `q[j] * scales[j / 32]`.
#[derive(Clone, Copy)]
pub struct ActivationRow<'a> {
    /// [cols], -127..=127
    pub q: &'a [i8],
    /// [cols / 32]
    pub scales: &'a [f32],
    /// [cols / 16]: scale times the sum of 16 values
    pub sums: &'a [f32],
}

/// Rows of weights that a kernel computes together.
pub const ROWS: usize = 4;
/// Rows of activations that a kernel computes together.
pub const TOKENS: usize = 2;

/// How a type's integers may be multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowForm {
    /// Some `q` are negative.
    pub signed: bool,
    /// Two neighbouring groups of 16 always have the same scale.
    pub groups_of_32: bool,
}

impl Simd {
    /// The best that this CPU has.
    pub fn best() -> Simd {
        [SimdLevel::Avx512Vnni, SimdLevel::Avx2].into_iter().find_map(Simd::with).unwrap_or(Simd(SimdLevel::Scalar))
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
            SimdLevel::Avx512Vnni => {
                Simd::with(SimdLevel::Avx2).is_some()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        };
        present.then_some(Simd(level))
    }

    pub fn level(self) -> SimdLevel {
        self.0
    }

    /// Dot products of 4 rows of weights with 1 or 2 rows of activations: `out[t][r]`.
    pub fn dot_rows(
        self,
        form: RowForm,
        rows: &[WeightRow<'_>; ROWS],
        acts: &[ActivationRow<'_>],
        out: &mut [[f32; ROWS]],
    ) {
        check(rows, acts, out);
        match self.0 {
            SimdLevel::Scalar => scalar::dot_rows(rows, acts, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the lengths were checked.
            SimdLevel::Avx2 => unsafe { x86::dot_rows_avx2(form, rows, acts, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::dot_rows_avx512(form, rows, acts, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => scalar::dot_rows(rows, acts, out),
        }
        let _ = form;
    }

    /// Rounds a row of activations to 8 bits, 32 values to a scale.
    pub fn quantize(self, x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
        assert!(x.len() % 32 == 0 && q.len() == x.len() && scales.len() == x.len() / 32 && sums.len() == x.len() / 16);
        match self.0 {
            SimdLevel::Scalar => portable::quantize(x, q, scales, sums),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions (AVX-512 machines have AVX2).
            _ => unsafe { x86::quantize_avx2(x, q, scales, sums) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::quantize(x, q, scales, sums),
        }
    }

    /// Sum of products.
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        match self.0 {
            SimdLevel::Scalar => scalar::dot(a, b),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the lengths are equal.
            _ => unsafe { x86::dot_avx2(a, b) },
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
            SimdLevel::Scalar => portable::exp_minus(x, max),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::exp_minus_avx2(x, max) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::exp_minus(x, max),
        }
    }

    /// `gate = silu(gate) * up`
    pub fn swiglu(self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        match self.0 {
            SimdLevel::Scalar => portable::swiglu(gate, up),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            _ => unsafe { x86::swiglu_avx2(gate, up) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::swiglu(gate, up),
        }
    }

    /// f16 bits to f32.
    pub fn widen_f16(self, x: &[u16], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        match self.0 {
            SimdLevel::Scalar => portable::widen_f16(x, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions; the lengths are equal.
            _ => unsafe { x86::widen_f16_avx2(x, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::widen_f16(x, out),
        }
    }
}

/// The kernels go through raw pointers: every length must be right.
fn check(rows: &[WeightRow<'_>; ROWS], acts: &[ActivationRow<'_>], out: &[[f32; ROWS]]) {
    let cols = rows[0].q.len();
    assert!(cols % 32 == 0 && (1..=TOKENS).contains(&acts.len()) && out.len() == acts.len());
    for row in rows {
        assert!(row.q.len() == cols && row.scales.len() == cols / 16);
        assert!(row.mins.is_empty() == rows[0].mins.is_empty() && (row.mins.is_empty() || row.mins.len() == cols / 16));
    }
    for act in acts {
        assert!(act.q.len() == cols && act.scales.len() == cols / 32 && act.sums.len() == cols / 16);
    }
}
