//! Rotary position embeddings, with frequency factors and YaRN.

use super::product;
use crate::buffers::Buffers;
use crate::cpu::Machine;
use backend::{BackendError, RopePairs, RopeSpec, View};

const OP: &str = "Rope";

/// Angle per position of every pair, and the magnitude.
fn angles(spec: &RopeSpec, factors: Option<&[f32]>) -> (Vec<f64>, f64) {
    let yarn = spec.ext_factor != 0.0;
    let scale = f64::from(spec.freq_scale);
    let angles = (0..spec.dims / 2)
        .map(|i| {
            let exponent = -2.0 * i as f64 / spec.dims as f64;
            let extrapolated =
                f64::from(spec.freq_base).powf(exponent) / factors.map_or(1.0, |factors| f64::from(factors[i]));
            let interpolated = scale * extrapolated;
            if !yarn {
                return interpolated;
            }
            let mix = spec.ramp(i) * f64::from(spec.ext_factor);
            interpolated * (1.0 - mix) + extrapolated * mix
        })
        .collect();
    let grown = if yarn { 1.0 + 0.1 * (1.0 / scale).ln() } else { 1.0 };
    (angles, f64::from(spec.attn_factor) * grown)
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
    let (angles, magnitude) = angles(spec, factors);
    machine.run(OP, n, &|worker, token| {
        let mut scratch = machine.scratch.worker(worker);
        let turns = &mut scratch.floats;
        turns.clear();
        // Positions are u32 in a buffer of f32. Angles are turned in f64: at large positions f32 has no digits left.
        let position = f64::from(positions[token].to_bits());
        for angle in &angles {
            let (sin, cos) = (position * angle).sin_cos();
            turns.extend([(cos * magnitude) as f32, (sin * magnitude) as f32]);
        }
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
