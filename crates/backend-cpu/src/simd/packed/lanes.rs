//! The small vector interface that the panel kernel is written over: 16 lanes, one for each row of a panel.

use super::panel::{Lane16, PANEL_ROWS};

/// Vectors of 16 lanes.
///
/// # Safety
/// Methods may only be called on CPUs that have the instructions of the implementation.
pub unsafe trait Lanes {
    /// 16 x i32
    type I: Copy;
    /// 16 x f32
    type F: Copy;
    /// 16 x 4 bytes of weights
    type W: Copy;
    /// Signed weights are stored plus 128, without sign; sums start at -128 times the sum of the activations.
    const OFFSET: bool;

    unsafe fn splat(x: i32) -> Self::I;
    unsafe fn splat_f(x: f32) -> Self::F;
    unsafe fn weights(w: &[u32; PANEL_ROWS]) -> Self::W;
    /// `sum + Σ w * a` over 4 neighbouring values, `a` being their bytes. `SIGNED`: weights may be negative.
    unsafe fn dot4<const SIGNED: bool>(sum: Self::I, w: Self::W, a: i32) -> Self::I;
    /// `sums` and the products of some neighbouring values with those of `T` tokens, each of which has at least four for a
    /// quad.
    #[inline(always)]
    unsafe fn dots<const T: usize, const SIGNED: bool>(
        sums: [Self::I; T],
        quads: &[Lane16<u32>],
        a: [*const i8; T],
    ) -> [Self::I; T]
    where
        Self: Sized,
    {
        // SAFETY: the caller's.
        unsafe { by_fours::<Self, T, SIGNED>(sums, quads, a) }
    }
    /// `sum + x * scales`
    unsafe fn add_scaled(sum: Self::I, x: Self::I, scales: &[i32; PANEL_ROWS]) -> Self::I;
    /// `sum + x[0] * y[0] + x[1] * y[1]` for pairs of i16; `y` holds one pair, the first in its low half.
    unsafe fn add_pairs(sum: Self::I, x: &[[i16; 2]; PANEL_ROWS], y: i32) -> Self::I;
    unsafe fn to_f(x: Self::I) -> Self::F;
    unsafe fn load(x: &[f32; PANEL_ROWS]) -> Self::F;
    unsafe fn store(x: Self::F, out: &mut [f32; PANEL_ROWS]);
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F;
}

/// [`Lanes::dots`], four values at a time.
///
/// # Safety
/// The CPU has the instructions of `V`; each token has at least four values for a quad.
#[inline(always)]
pub unsafe fn by_fours<V: Lanes, const T: usize, const SIGNED: bool>(
    mut sums: [V::I; T],
    quads: &[Lane16<u32>],
    a: [*const i8; T],
) -> [V::I; T] {
    for (i, quad) in quads.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let w = V::weights(&quad.0);
            for t in 0..T {
                let bytes = i32::from_le(a[t].add(4 * i).cast::<i32>().read_unaligned());
                sums[t] = V::dot4::<SIGNED>(sums[t], w, bytes);
            }
        }
    }
    sums
}

/// Plain Rust: the scalar twin.
pub struct Portable;

// SAFETY: no special instructions are used.
unsafe impl Lanes for Portable {
    type I = [i32; PANEL_ROWS];
    type F = [f32; PANEL_ROWS];
    type W = [u32; PANEL_ROWS];
    const OFFSET: bool = false;

    unsafe fn splat(x: i32) -> Self::I {
        [x; PANEL_ROWS]
    }
    unsafe fn splat_f(x: f32) -> Self::F {
        [x; PANEL_ROWS]
    }
    unsafe fn weights(w: &[u32; PANEL_ROWS]) -> Self::W {
        *w
    }
    unsafe fn dot4<const SIGNED: bool>(sum: Self::I, w: Self::W, a: i32) -> Self::I {
        let a = a.to_le_bytes();
        std::array::from_fn(|r| {
            let w = w[r].to_le_bytes();
            let product = |j: usize| i32::from(w[j] as i8) * i32::from(a[j] as i8);
            sum[r] + product(0) + product(1) + product(2) + product(3)
        })
    }
    unsafe fn add_scaled(sum: Self::I, x: Self::I, scales: &[i32; PANEL_ROWS]) -> Self::I {
        std::array::from_fn(|r| sum[r] + x[r] * scales[r])
    }
    unsafe fn add_pairs(sum: Self::I, x: &[[i16; 2]; PANEL_ROWS], y: i32) -> Self::I {
        let (low, high) = (i32::from(y as i16), y >> 16);
        std::array::from_fn(|r| sum[r] + i32::from(x[r][0]) * low + i32::from(x[r][1]) * high)
    }
    unsafe fn to_f(x: Self::I) -> Self::F {
        x.map(|x| x as f32)
    }
    unsafe fn load(x: &[f32; PANEL_ROWS]) -> Self::F {
        *x
    }
    unsafe fn store(x: Self::F, out: &mut [f32; PANEL_ROWS]) {
        *out = x;
    }
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|r| x[r] + y[r])
    }
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|r| x[r] - y[r])
    }
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|r| x[r] * y[r])
    }
}
