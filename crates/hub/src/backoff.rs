//! Waiting longer after each failure, with jitter so that lanes do not return in step.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use crate::HubError;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The pause before the next try after `failures` failures in a row (1, 2, ...): 50-100 % of `first * 2^(n-1)`, at
    /// most `longest`, and never less than the server asked for.
    pub fn pause(&self, failures: u32, error: &HubError) -> Duration {
        let doubled = self.first.saturating_mul(1u32 << failures.saturating_sub(1).min(16));
        let pause = doubled.min(self.longest).mul_f64(0.5 + 0.5 * random_unit());
        match error {
            HubError::RateLimited { retry_after: Some(asked) } => pause.max(*asked),
            _ => pause,
        }
    }
}

/// In 0..1. The standard library's randomly keyed hasher is random enough for jitter.
fn random_unit() -> f64 {
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_is_bounded_and_honours_the_server() {
        let backoff = Backoff::default();
        let cut = HubError::Interrupted { host: String::new(), detail: String::new() };
        for (failures, low, high) in [(1, 250, 500), (2, 500, 1000), (4, 2000, 4000), (40, 15_000, 30_000)] {
            let pause = backoff.pause(failures, &cut).as_millis();
            assert!((low..=high).contains(&pause), "{failures} failures: {pause} ms");
        }
        let asked = HubError::RateLimited { retry_after: Some(Duration::from_secs(90)) };
        assert_eq!(backoff.pause(1, &asked), Duration::from_secs(90));
    }
}
