//! How far logits and tokens are from the reference's.

/// (max abs, rms) of the difference; infinite if the shapes differ.
pub fn compare(actual: &[f32], expected: &[f32]) -> (f64, f64) {
    if actual.len() != expected.len() || actual.is_empty() {
        return (f64::INFINITY, f64::INFINITY);
    }
    let mut worst = 0f64;
    let mut sum = 0f64;
    for (a, b) in actual.iter().zip(expected) {
        let difference = (f64::from(*a) - f64::from(*b)).abs();
        // NaN must not vanish in a maximum.
        if !(difference <= worst) {
            worst = difference;
        }
        sum += difference * difference;
    }
    (worst, (sum / actual.len() as f64).sqrt())
}

/// Rows that may differ more where choices of experts are compared after other roundings: an expert that wins by less
/// than the rounding is another one, and its row another row.
pub fn flips(rows: usize) -> usize {
    (rows / 40).max(1)
}

/// The same without the `dropped` rows that differ most.
pub fn compare_but(actual: &[f32], expected: &[f32], width: usize, dropped: usize) -> (f64, f64) {
    let mut rows: Vec<(f64, f64)> =
        actual.chunks_exact(width).zip(expected.chunks_exact(width)).map(|(a, b)| compare(a, b)).collect();
    if actual.len() != expected.len() || rows.len() <= dropped {
        return (f64::INFINITY, f64::INFINITY);
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows.truncate(rows.len() - dropped);
    let squares: f64 = rows.iter().map(|(_, rms)| rms * rms).sum();
    (rows[rows.len() - 1].0, (squares / rows.len() as f64).sqrt())
}

/// The share of rows whose likeliest token is the same.
pub fn top1_agreement(actual: &[f32], expected: &[f32], width: usize) -> f64 {
    let top = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let rows = actual.chunks_exact(width).zip(expected.chunks_exact(width));
    let same = rows.clone().filter(|(a, b)| top(a) == top(b)).count();
    same as f64 / rows.count().max(1) as f64
}

/// Greedy tokens must agree up to the first step that the reference itself decided by less than `gap`.
pub fn greedy_agrees(actual: &[u32], expected: &[u32], gaps: &[f64], gap: f64) -> bool {
    let sure = gaps.iter().position(|found| !(*found >= gap)).unwrap_or(expected.len());
    actual.len() == expected.len() && actual[..sure] == expected[..sure]
}
