//! Scalar twins: the same arithmetic, value by value.

/// Lanes of the vectors in the twin kernels.
const LANES: usize = 8;

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
