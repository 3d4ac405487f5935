//! Rotary position embeddings, with frequency factors and YaRN.

use super::product;
use crate::buffers::Buffers;
use crate::cpu::Machine;
use backend::{BackendError, RopePairs, RopeSpec, View};

const OP: &str = "Rope";

/// The cosine and the sine of every pair.
fn turns(spec: &RopeSpec, factors: Option<&[f32]>, position: u32) -> impl Iterator<Item = [f32; 2]> {
    let (step, magnitude) = (spec.step(), spec.magnitude());
    let angles = std::iter::successors(Some(position as f32), move |angle| Some(angle * step));
    angles.take(spec.dims / 2).enumerate().map(move |(i, angle)| {
        let extrapolated = factors.map_or(angle, |factors| angle / factors[i]);
        let interpolated = spec.freq_scale * extrapolated;
        let mix = spec.mix(i);
        let angle = if mix == 0.0 { interpolated } else { interpolated * (1.0 - mix) + extrapolated * mix };
        // Functions of f64, rounded, are the same on all systems.
        let (sin, cos) = f64::from(angle).sin_cos();
        [cos as f32 * magnitude, sin as f32 * magnitude]
    })
}

pub(crate) fn rope(
    machine: &Machine,
    buffers: &Buffers,
    x: View,
    [n, heads, head_dim]: [usize; 3],
    spec: &RopeSpec,
    positions: View,
    factors: Option<View>,
) -> Result<(), BackendError> {
    spec.check(OP, head_dim)?;
    let half = spec.dims / 2;
    let x = buffers.span_mut(OP, x, product(OP, &[n, heads, head_dim])?)?;
    let positions = buffers.span(OP, positions, n)?;
    let factors = factors.map(|factors| buffers.span(OP, factors, half)).transpose()?;
    // SAFETY: positions and factors are not written here.
    let (positions, factors) = unsafe { (positions.read(0, n), factors.map(|factors| factors.read(0, half))) };
    machine.run(OP, n, &|worker, token| {
        let mut scratch = machine.scratch.worker(worker);
        let values = &mut scratch.floats;
        values.clear();
        // Positions are u32 in a buffer of f32.
        values.extend(turns(spec, factors, positions[token].to_bits()).flatten());
        let turns = &*values;
        for head in 0..heads {
            // SAFETY: heads are disjoint.
            let values = unsafe { x.write((token * heads + head) * head_dim, head_dim) };
            for (i, turn) in turns.chunks_exact(2).enumerate() {
                let (a, b) = match spec.pairs {
                    RopePairs::Adjacent => (2 * i, 2 * i + 1),
                    RopePairs::Halves => (i, i + half),
                };
                let (p, q) = (values[a], values[b]);
                values[a] = p * turn[0] - q * turn[1];
                values[b] = p * turn[1] + q * turn[0];
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ext_factor: f32) -> RopeSpec {
        RopeSpec {
            pairs: RopePairs::Halves,
            dims: 16,
            freq_base: 10_000.0,
            freq_scale: 0.25,
            ext_factor,
            attn_factor: 1.5,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_context: 256,
        }
    }

    #[test]
    fn angles_are_products_of_f32() {
        let spec = RopeSpec { freq_scale: 1.0, attn_factor: 1.0, ..spec(0.0) };
        let cosines: Vec<f32> = turns(&spec, None, 599).map(|[cos, _]| cos).collect();
        // As NumPy rounds the products. The exact angle of pair 1 has the cosine 0.6019363.
        let expected =
            [-0.50259644, 0.60194147, -0.97808564, 0.9957263, 0.95732796, -0.31779954, 0.8258999, 0.98211354];
        assert_eq!(cosines, expected);
    }

    #[test]
    fn angles_are_near_the_formula() {
        let factors = [1.0, 2.0, 1.0, 3.0, 1.0, 1.5, 4.0, 1.0];
        for ext_factor in [0.0, 1.0] {
            let spec = spec(ext_factor);
            for (i, [cos, sin]) in turns(&spec, Some(&factors), 300).enumerate() {
                let extrapolated = 300.0 * 10_000f64.powf(-2.0 * i as f64 / 16.0) / f64::from(factors[i]);
                let mix = f64::from(spec.mix(i));
                let angle = 0.25 * extrapolated * (1.0 - mix) + extrapolated * mix;
                let magnitude = 1.5 * if ext_factor == 0.0 { 1.0 } else { 1.0 + 0.1 * 4f64.ln() };
                let error =
                    (f64::from(cos) - magnitude * angle.cos()).abs() + (f64::from(sin) - magnitude * angle.sin()).abs();
                assert!(error < 2e-4, "pair {i}: {error}");
            }
        }
    }
}
