//! Scalar twins: the same arithmetic, value by value.

use super::{ActivationRow, ROWS, WeightRow};

/// Lanes of the vectors in the twin kernels; a lane sums 4 neighbouring products.
const LANES: usize = 8;

pub fn dot_rows(rows: &[WeightRow<'_>; ROWS], acts: &[ActivationRow<'_>], out: &mut [[f32; ROWS]]) {
    for (act, out) in acts.iter().zip(out) {
        for (row, out) in rows.iter().zip(out) {
            *out = dot_row(row, act);
        }
    }
}

fn dot_row(row: &WeightRow<'_>, act: &ActivationRow<'_>) -> f32 {
    let mut lanes = [0f32; LANES];
    for (chunk, (w, a)) in row.q.chunks_exact(32).zip(act.q.chunks_exact(32)).enumerate() {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            let product = |j: usize| i32::from(w[j]) * i32::from(a[j]);
            let integer: i32 = (4 * lane..4 * lane + 4).map(product).sum();
            let scale = row.scales[2 * chunk + lane / 4] * act.scales[chunk];
            *sum += scale * integer as f32;
        }
    }
    let mut total = reduce(lanes);
    if !row.mins.is_empty() {
        total -= dot(row.mins, act.sums);
    }
    total
}

fn reduce(lanes: [f32; LANES]) -> f32 {
    let half: [f32; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
    (half[0] + half[2]) + (half[1] + half[3])
}

pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [[0f32; LANES]; 4];
    let (a_chunks, b_chunks) = (a.chunks_exact(32), b.chunks_exact(32));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for (j, (a, b)) in a.iter().zip(b).enumerate() {
            lanes[j / LANES][j % LANES] += a * b;
        }
    }
    let sum: [f32; LANES] = std::array::from_fn(|i| (lanes[0][i] + lanes[1][i]) + (lanes[2][i] + lanes[3][i]));
    let mut total = reduce(sum);
    for (a, b) in rest {
        total += a * b;
    }
    total
}
