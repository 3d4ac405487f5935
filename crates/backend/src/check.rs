//! What every device checks of an operation's shapes before it touches a buffer.

use crate::{BackendError, KvCache, RopeSpec, Router};
use std::f64::consts::PI;

/// An operation that the caller has put together wrongly.
pub fn invalid(op: &'static str, detail: impl Into<String>) -> BackendError {
    BackendError::Invalid { op, detail: detail.into() }
}

/// Multiplies sizes that come from a caller.
///
/// # Errors
/// [`BackendError::Invalid`] if they overflow.
pub fn product(op: &'static str, sizes: &[usize]) -> Result<usize, BackendError> {
    let all = sizes.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
    all.ok_or_else(|| invalid(op, format!("sizes {sizes:?} overflow")))
}

/// Values from the first to the last of `rows` rows of `dim` values that start every `stride` values; `rows` is not 0.
///
/// # Errors
/// [`BackendError::Invalid`] if rows would overlap, or sizes overflow.
pub fn strided(op: &'static str, rows: usize, stride: usize, dim: usize) -> Result<usize, BackendError> {
    if stride < dim {
        return Err(invalid(op, format!("a stride of {stride} is less than {dim} values")));
    }
    let before = product(op, &[rows.saturating_sub(1), stride])?;
    before.checked_add(dim).ok_or_else(|| invalid(op, "sizes overflow"))
}

/// Whether `len` values are whole blocks of a Walsh-Hadamard transform.
///
/// # Errors
/// [`BackendError::Invalid`] if not, or if the blocks are not a power of two.
pub fn hadamard(op: &'static str, len: usize, block: usize) -> Result<(), BackendError> {
    match block.is_power_of_two() && len % block == 0 {
        true => Ok(()),
        false => Err(invalid(op, format!("{len} values in blocks of {block}"))),
    }
}

impl KvCache {
    /// Whether `n` new rows from position `start` on fit, together with the cells before them that a window (0: all of
    /// them) shows to the first of them. `None`: only the new cells must be there.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] if not.
    pub fn check_cells(
        &self,
        op: &'static str,
        start: usize,
        n: usize,
        window: Option<usize>,
    ) -> Result<(), BackendError> {
        let end = start.checked_add(n).ok_or_else(|| invalid(op, "positions overflow"))?;
        let needed = match window {
            Some(0) => end,
            Some(window) => end.min(n.saturating_add(window - 1)),
            None => n,
        };
        if needed > self.capacity {
            return Err(invalid(op, format!("{n} cells from {start} do not fit a cache of {}", self.capacity)));
        }
        Ok(())
    }
}

impl Router {
    /// # Errors
    /// [`BackendError::Invalid`] if there are not as many experts to choose from as are to be used, or groups of
    /// different sizes.
    pub fn check(&self, op: &'static str) -> Result<(), BackendError> {
        let (experts, used) = (self.experts, self.used);
        let grouped = self.groups > 1;
        let open = if grouped { experts / self.groups * self.groups_used } else { experts };
        if used > open || grouped && (experts % self.groups != 0 || self.groups_used > self.groups) {
            return Err(invalid(op, format!("{used} of {experts} experts in {} groups", self.groups)));
        }
        Ok(())
    }
}

impl RopeSpec {
    /// # Errors
    /// [`BackendError::Invalid`] if a head of `head_dim` values has not as many pairs.
    pub fn check(&self, op: &'static str, head_dim: usize) -> Result<(), BackendError> {
        if self.dims > head_dim || self.dims % 2 != 0 {
            return Err(invalid(op, format!("{} of {head_dim} values cannot turn", self.dims)));
        }
        Ok(())
    }

    /// From a pair's angle to the next one's.
    ///
    /// Angles are f32, and every pair's is the rounded product of the one before it with this, as in ggml: models are
    /// measured with those, and exact angles move logits by 1e-4 after some hundred tokens.
    pub fn step(&self) -> f32 {
        f64::from(self.freq_base).powf(f64::from(-2.0 / self.dims as f32)) as f32
    }

    /// What turned values are multiplied by.
    pub fn magnitude(&self) -> f32 {
        let grown = if self.ext_factor == 0.0 { 1.0 } else { 1.0 + 0.1 * (1.0 / self.freq_scale).ln() };
        self.attn_factor * grown
    }

    /// The share of the extrapolated angle in pair `i`'s.
    pub fn mix(&self, i: usize) -> f32 {
        if self.ext_factor == 0.0 { 0.0 } else { self.ramp(i) as f32 * self.ext_factor }
    }

    /// Which share of the extrapolated angle pair `i` takes (YaRN, arXiv 2309.00071, eq. 21-23): 1 for fast pairs, 0 for
    /// slow ones.
    fn ramp(&self, i: usize) -> f64 {
        let dims = self.dims as f64;
        let correction = |beta: f32| {
            let turns = f64::from(self.original_context) / (f64::from(beta) * 2.0 * PI);
            dims * turns.ln() / (2.0 * f64::from(self.freq_base).ln())
        };
        let low = correction(self.beta_fast).floor().max(0.0);
        let high = correction(self.beta_slow).ceil().min(dims - 1.0);
        1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BufferId, Gating};
    use quant::GgmlType;

    #[test]
    fn sizes_that_overflow_or_rows_that_overlap_are_refused() {
        assert_eq!(product("Op", &[2, 3, 4]), Ok(24));
        assert!(product("Op", &[usize::MAX, 2]).is_err());
        assert_eq!(strided("Op", 3, 10, 4), Ok(24));
        assert!(strided("Op", 3, 3, 4).is_err());
        assert!(strided("Op", 2, usize::MAX, 1).is_err());
    }

    #[test]
    fn a_transform_has_whole_blocks_of_a_power_of_two() {
        assert!(hadamard("Op", 96, 32).is_ok() && hadamard("Op", 0, 1).is_ok());
        assert!(hadamard("Op", 96, 48).is_err() && hadamard("Op", 80, 32).is_err() && hadamard("Op", 0, 0).is_err());
    }

    #[test]
    fn a_window_needs_its_cells_besides_the_new_ones() {
        let cache = KvCache {
            k: BufferId(0),
            v: None,
            k_type: GgmlType::F16,
            v_type: GgmlType::F16,
            capacity: 8,
            head_count_kv: 1,
            head_dim_k: 32,
            head_dim_v: 32,
        };
        let fits = |start, n, window| cache.check_cells("Op", start, n, window).is_ok();
        assert!(fits(4, 4, Some(0)) && !fits(5, 4, Some(0)));
        // Four new rows, and the four before the first that a window of five shows it.
        assert!(fits(100, 4, Some(5)) && !fits(100, 4, Some(6)));
        assert!(fits(100, 8, None) && !fits(100, 9, None));
        assert!(!fits(usize::MAX, 1, Some(1)));
    }

    #[test]
    fn groups_must_offer_as_many_experts_as_are_used() {
        let router = Router {
            experts: 8,
            used: 4,
            gating: Gating::Softmax,
            normalize: false,
            scale: 1.0,
            groups: 4,
            groups_used: 2,
        };
        assert!(router.check("Op").is_ok());
        assert!(Router { groups_used: 1, ..router }.check("Op").is_err());
        assert!(Router { groups: 3, groups_used: 3, ..router }.check("Op").is_err());
        assert!(Router { used: 9, groups: 1, ..router }.check("Op").is_err());
    }
}
