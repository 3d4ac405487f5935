//! GELU as ggml computes it. Models were quantized and measured with this; the exact function moves logits by up to 0.04.

use half::f16;
use std::sync::LazyLock;

/// The results for all arguments of 16 bits: a constant, made when it is first needed.
static TABLE: LazyLock<Vec<f16>> = LazyLock::new(|| (0..=u16::MAX).map(|bits| rounded(f16::from_bits(bits))).collect());

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, argument and result rounded to f16; far out 0 or the identity.
pub(crate) fn gelu(x: f32) -> f32 {
    if x.abs() >= 10.0 { x.max(0.0) } else { TABLE[usize::from(f16::from_f32(x).to_bits())].to_f32() }
}

/// Every step in f32, as in the reference: `1 + tanh` cancels for negative arguments, and what is left of it shows in
/// f16. The system's own `tanhf` differs between systems in the last bit; that of f64 does not once it is rounded.
fn rounded(x: f16) -> f16 {
    let x = x.to_f32();
    let inner = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * x * (1.0 + 0.044715 * x * x);
    f16::from_f32(0.5 * x * (1.0 + f64::from(inner).tanh() as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_the_exact_ones_in_11_bits() {
        for step in -1200..1200 {
            let x = step as f32 / 100.0;
            let wide = f64::from(x);
            let exact =
                0.5 * wide * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3))).tanh());
            let error = (f64::from(gelu(x)) - exact).abs();
            let allowed = (1e-3 + 2.5e-4 * wide * wide) * exact.abs() + 4e-7;
            assert!(error <= allowed, "{x}: {} instead of {exact}", gelu(x));
        }
        assert!(gelu(f32::NAN).is_nan());
    }

    #[test]
    fn results_are_those_of_steps_in_f32() {
        // As NumPy rounds the steps; the last one is 0.2255 where GELU is computed from one exponential.
        for (x, bits) in [(-4.0, 33946), (-3.5, 37132), (-2.5, 41913), (0.353_271_48, 13110)] {
            assert_eq!(f16::from_f32(gelu(x)).to_bits(), bits, "{x}");
        }
    }
}
