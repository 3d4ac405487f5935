//! Products with operands in registers: what panel kernels would reach if they had nothing else to do.

use super::lanes::Lanes;
use super::panel::LANES;
use std::hint::black_box;

/// `rounds` times the products of `N` weights with `T` activations; the number of multiply-adds.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
pub unsafe fn multiply_adds<V: Lanes, const N: usize, const T: usize>(rounds: u32) -> u64 {
    // SAFETY: the caller has the instructions.
    unsafe {
        let weights: [V::W; N] = std::array::from_fn(|i| V::weights(&black_box([0x0102_0304 + i as u32; LANES])));
        let mut sums = [[V::splat(black_box(0)); T]; N];
        for round in 0..rounds {
            for t in 0..T {
                // Not the same in any two rounds: nothing can be computed beforehand.
                let activations = V::bytes((round as i32).wrapping_add(t as i32) & 0x7f7f_7f7f);
                for i in 0..N {
                    sums[i][t] = V::dot4(sums[i][t], weights[i], activations);
                }
            }
        }
        let mut out = [0f32; LANES];
        for sum in sums.into_iter().flatten() {
            V::store(V::to_f(sum), &mut out);
            black_box(&out);
        }
    }
    u64::from(rounds) * (N * T * 4 * LANES) as u64
}
