//! Least-squares searches for the scale of a group, shared by several types. `w` are non-negative weights of the squared
//! errors. Sums run over elements in order, so results do not depend on the machine.

/// Below this magnitude a group counts as zero.
pub(super) const TINY: f32 = 1e-15;

/// The nearest integer, ties to even, for |v| < 2^22; larger values saturate somewhere beyond, NaN gives 0.
pub(super) fn nearest(v: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves no bits for a fraction
    ((v + MAGIC) - MAGIC) as i32
}

/// `Σ w x l` and `Σ w l²`: the best scale for given levels is their quotient, and `(Σ w x l)² / Σ w l²` what it explains.
#[derive(Clone, Copy, Default)]
struct Fit {
    xl: f32,
    ll: f32,
}

impl Fit {
    fn add(&mut self, w: f32, x: f32, level: f32) {
        self.xl += w * x * level;
        self.ll += w * level * level;
    }

    fn scale(self) -> f32 {
        if self.ll > 0.0 { self.xl / self.ll } else { 0.0 }
    }
}

/// The scale for signed levels `-max_level..max_level` that leaves the least weighted error among nineteen candidates.
/// Levels are stored plus `max_level`.
pub(super) fn signed_scale(x: &[f32], w: &[f32], max_level: i32, levels: &mut [u8]) -> f32 {
    let extreme = super::extreme(x);
    levels.fill(if extreme.abs() < TINY { 0 } else { max_level as u8 });
    if !(extreme.abs() >= TINY) {
        return 0.0;
    }
    let (mut scale, mut best) = (0.0, 0.0);
    // The plain choice first: later ones must beat it.
    for step in [0, -9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let inverse = -(max_level as f32 + 0.1 * step as f32) / extreme;
        let level = |x: f32| nearest(inverse * x).clamp(-max_level, max_level - 1);
        let mut fit = Fit::default();
        for (&x, &w) in x.iter().zip(w) {
            fit.add(w, x, level(x) as f32);
        }
        if step == 0 || (fit.ll > 0.0 && fit.xl * fit.xl > best * fit.ll) {
            scale = fit.scale();
            best = scale * fit.xl;
            for (out, &x) in levels.iter_mut().zip(x) {
                *out = (level(x) + max_level) as u8;
            }
        }
    }
    scale
}

/// The scale for signed levels, by moving single levels while that explains more (weights `x²`). Levels are stored plus
/// `max_level`.
pub(super) fn signed_scale_by_descent(x: &[f32], max_level: i32, levels: &mut [u8]) -> f32 {
    let extreme = super::extreme(x);
    levels.fill(0);
    if !(extreme.abs() >= TINY) {
        return 0.0;
    }
    let clamp = |v: f32| nearest(v).clamp(-max_level, max_level - 1);
    let inverse = -max_level as f32 / extreme;
    let mut fit = Fit::default();
    for (out, &x) in levels.iter_mut().zip(x) {
        let level = clamp(inverse * x);
        *out = (level + max_level) as u8;
        fit.add(x * x, x, level as f32);
    }
    descend(x, |i| x[i] * x[i], fit, levels, max_level, clamp)
}

/// Up to five rounds of replacing one level at a time by the best one for the fit without it.
fn descend(
    x: &[f32],
    w: impl Fn(usize) -> f32,
    mut fit: Fit,
    levels: &mut [u8],
    zero: i32,
    clamp: impl Fn(f32) -> i32,
) -> f32 {
    for _ in 0..5 {
        let mut changed = false;
        for (i, out) in levels.iter_mut().enumerate() {
            let (x, w) = (x[i], w(i));
            let old = (i32::from(*out) - zero) as f32;
            let mut other = Fit { xl: fit.xl - w * x * old, ll: fit.ll - w * old * old };
            if !(other.xl > 0.0 && other.ll > 0.0) {
                continue;
            }
            let level = clamp(x * other.ll / other.xl);
            if level as f32 == old {
                continue;
            }
            other.add(w, x, level as f32);
            if other.ll > 0.0 && other.xl * other.xl * fit.ll > fit.xl * fit.xl * other.ll {
                *out = (level + zero) as u8;
                fit = other;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    fit.scale()
}

/// The scale for levels `0..=max_level` of values that are not negative (the scales of groups).
pub(super) fn positive_scale(x: &[f32], w: &[f32], max_level: i32, levels: &mut [u8]) -> f32 {
    let max = x.iter().fold(0.0, |max: f32, &v| max.max(v));
    levels.fill(0);
    if !(max >= TINY) {
        return 0.0;
    }
    let top = max_level as f32;
    let clamp = |v: f32| nearest(v).clamp(0, max_level);
    let error = |inverse: f32| {
        let scale = 1.0 / inverse;
        x.iter().zip(w).fold(0.0, |sum, (&x, &w)| {
            let difference = x - scale * clamp(inverse * x) as f32;
            sum + w * difference * difference
        })
    };
    let mut inverse = top / max;
    let mut least = error(inverse);
    for step in [-4, -3, -2, -1, 1, 2, 3, 4] {
        let candidate = (0.1 * step as f32 + top) / max;
        let error = error(candidate);
        if error < least {
            (least, inverse) = (error, candidate);
        }
    }
    let mut fit = Fit::default();
    for ((out, &x), &w) in levels.iter_mut().zip(x).zip(w) {
        let level = clamp(inverse * x);
        *out = level as u8;
        fit.add(w, x, level as f32);
    }
    descend(x, |i| w[i], fit, levels, 0, clamp)
}

/// How [`scale_and_offset`] looks: candidates `i` in `0..=steps` stretch the top level by `start + step * i`.
#[derive(Clone, Copy)]
pub(super) struct Candidates {
    pub start: f32,
    pub step: f32,
    pub steps: i32,
    /// Judge by weighted absolute errors instead of squares.
    pub absolute: bool,
}

/// The candidates used with importance weights.
pub(super) const FINE: Candidates = Candidates { start: -0.9, step: 0.05, steps: 36, absolute: false };

/// Scale and offset (`x ≈ scale * level - offset`, `offset >= 0`) for levels `0..=max_level`: for each candidate's levels, the
/// weighted linear regression; the one with the least error wins.
pub(super) fn scale_and_offset<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    max_level: i32,
    levels: &mut [u8],
    candidates: Candidates,
) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (0.0, 0.0);
    for (&x, &w) in x.iter().zip(w) {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
        sum_w += w;
        sum_x += w * x;
    }
    min = min.min(0.0);
    levels.fill(0);
    if !(max > min) {
        return (0.0, -min);
    }
    let top = max_level as f32;
    let error = |scale: f32, min: f32, levels: &[f32; N]| {
        x.iter().zip(w).zip(levels).fold(0.0, |sum, ((&x, &w), &level)| {
            let difference = scale * level + min - x;
            sum + w * if candidates.absolute { difference.abs() } else { difference * difference }
        })
    };
    let level_of = |x: f32, inverse: f32, min: f32| nearest(inverse * (x - min)).clamp(0, max_level) as f32;

    let range = max - min;
    let mut scale = 1.0 / (top / range);
    let mut best = x.map(|x| level_of(x, top / range, min));
    let mut least = error(scale, min, &best);
    for i in 0..=candidates.steps {
        let inverse = (candidates.start + candidates.step * i as f32 + top) / (max - min);
        let tried = x.map(|x| level_of(x, inverse, min));
        let (mut sum_l, mut sum_ll, mut sum_xl) = (0.0, 0.0, 0.0);
        for ((&x, &w), &level) in x.iter().zip(w).zip(&tried) {
            sum_l += w * level;
            sum_ll += w * level * level;
            sum_xl += w * level * x;
        }
        let determinant = sum_w * sum_ll - sum_l * sum_l;
        if !(determinant > 0.0) {
            continue;
        }
        let mut new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut new_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
        if new_min > 0.0 {
            (new_scale, new_min) = (sum_xl / sum_ll, 0.0);
        }
        let error = error(new_scale, new_min, &tried);
        if error < least {
            (least, scale, min, best) = (error, new_scale, new_min, tried);
        }
    }
    for (out, level) in levels.iter_mut().zip(best) {
        *out = level as u8;
    }
    (scale, -min)
}
