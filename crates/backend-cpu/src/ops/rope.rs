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

/// Turns of the positions of a step: each layer wants them, of one or two kinds.
#[derive(Default)]
pub(crate) struct Tables(Vec<Table>);

struct Table {
    spec: RopeSpec,
    factors: Option<Vec<f32>>,
    /// u32 in f32.
    positions: Vec<f32>,
    /// For each position cosines, then sines.
    turns: Vec<f32>,
}

/// Kinds of turns that are kept.
const KINDS: usize = 4;

impl Tables {
    fn turns(&mut self, spec: &RopeSpec, factors: Option<&[f32]>, positions: &[f32]) -> &[f32] {
        let same = |a: &[f32], b: &[f32]| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()));
        let found = self.0.iter().position(|table| {
            table.spec == *spec && table.factors.as_deref() == factors && same(&table.positions, positions)
        });
        let index = found.unwrap_or_else(|| {
            if self.0.len() == KINDS {
                self.0.remove(0);
            }
            let mut table = Table {
                spec: *spec,
                factors: factors.map(<[f32]>::to_vec),
                positions: positions.to_vec(),
                turns: Vec::new(),
            };
            for position in positions {
                let pairs: Vec<[f32; 2]> = turns(spec, factors, position.to_bits()).collect();
                table.turns.extend(pairs.iter().map(|[cos, _]| cos));
                table.turns.extend(pairs.iter().map(|[_, sin]| sin));
            }
            self.0.push(table);
            self.0.len() - 1
        });
        &self.0[index].turns
    }
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
    let mut tables = machine.scratch.turns();
    let turns = tables.turns(spec, factors, positions);
    machine.run(OP, n, &|_, token| {
        let (cos, sin) = turns[token * 2 * half..][..2 * half].split_at(half);
        for head in 0..heads {
            // SAFETY: heads are disjoint.
            let values = unsafe { x.write((token * heads + head) * head_dim, spec.dims) };
            match spec.pairs {
                RopePairs::Adjacent => {
                    for (pair, (cos, sin)) in values.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
                        *pair = turned(*pair, *cos, *sin);
                    }
                }
                RopePairs::Halves => {
                    let (low, high) = values.split_at_mut(half);
                    for ((p, q), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
                        [*p, *q] = turned([*p, *q], *cos, *sin);
                    }
                }
            }
        }
    })
}

#[inline(always)]
fn turned([p, q]: [f32; 2], cos: f32, sin: f32) -> [f32; 2] {
    [p * cos - q * sin, p * sin + q * cos]
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
    fn what_is_kept_is_what_was_asked_for() {
        let mut tables = Tables::default();
        let places = |positions: &[u32]| -> Vec<f32> { positions.iter().map(|p| f32::from_bits(*p)).collect() };
        let fresh = |spec: &RopeSpec, factors: Option<&[f32]>, positions: &[u32]| -> Vec<f32> {
            let each = |position: &u32| -> Vec<[f32; 2]> { turns(spec, factors, *position).collect() };
            let halves =
                |pairs: Vec<[f32; 2]>| [0, 1].map(|i| pairs.iter().map(|pair| pair[i]).collect::<Vec<_>>()).concat();
            positions.iter().flat_map(|position| halves(each(position))).collect()
        };
        let (plain, wide) = (spec(0.0), RopeSpec { freq_base: 1e6, ..spec(1.0) });
        let factors = [1.0, 2.0, 1.0, 3.0, 1.0, 1.5, 4.0, 1.0];
        // In turn, again, changed in one thing each time; more kinds than are kept.
        for (spec, factors, positions) in [
            (&plain, None, &[7, 8][..]),
            (&wide, None, &[7, 8]),
            (&plain, None, &[7, 8]),
            (&plain, Some(&factors[..]), &[7, 8]),
            (&plain, None, &[8, 7]),
            (&plain, None, &[7]),
            (&wide, Some(&factors), &[7]),
            (&wide, None, &[7, 8]),
            (&plain, None, &[7, 8]),
        ] {
            assert_eq!(tables.turns(spec, factors, &places(positions)), fresh(spec, factors, positions));
            assert!(tables.0.len() <= KINDS);
        }
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
