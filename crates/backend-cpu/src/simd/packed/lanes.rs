//! The small vector interface that the panel kernel is written over: 16 lanes, one for each of 16 rows of a panel.

use super::panel::{LANES, Lanes32};

/// Integer sums of `T` tokens with `R` vectors of rows.
pub type Sums<V, const R: usize, const T: usize> = [[<V as Lanes>::I; R]; T];

/// How panels keep what they hold.
///
/// # Safety
/// Methods may only be called on CPUs that have the instructions of the implementation.
pub unsafe trait Layout {
    /// Signed weights are stored plus 128, without sign; sums start at -128 times the sum of the activations.
    const OFFSET: bool;
    /// Rows to columns: lane `r` of `out[i][vector]` is word `i` of the row that begins `r` times `stride` bytes behind `rows`,
    /// with the bits of `flip` changed.
    #[inline(always)]
    unsafe fn turn(rows: *const u8, stride: usize, flip: u32, out: &mut [Lanes32<u32>; 16], vector: usize) {
        for lane in 0..LANES {
            // SAFETY: the caller's: 64 bytes of each row can be read.
            let row = unsafe { rows.add(lane * stride).cast::<[u32; 16]>().read_unaligned() };
            for (word, out) in row.iter().zip(out.iter_mut()) {
                out[vector].0[lane] = u32::from_le(*word) ^ flip;
            }
        }
    }
}

/// Vectors of 16 lanes.
///
/// # Safety
/// As of [`Layout`].
pub unsafe trait Lanes: Layout {
    /// 16 x i32
    type I: Copy;
    /// 16 x f32
    type F: Copy;
    /// 16 x 4 bytes of weights
    type W: Copy;
    /// 16 x 4 bytes of activations
    type A: Copy;

    unsafe fn splat(x: i32) -> Self::I;
    unsafe fn splat_f(x: f32) -> Self::F;
    unsafe fn weights(w: &[u32; LANES]) -> Self::W;
    /// Four activations for every lane.
    unsafe fn bytes(a: i32) -> Self::A;
    /// `sum + Σ w * a` over 4 neighbouring values.
    unsafe fn dot4(sum: Self::I, w: Self::W, a: Self::A) -> Self::I;
    /// `sums` and the products of some neighbouring values of `R` vectors of rows with those of `T` tokens, each of which has
    /// at least four for a quad.
    #[inline(always)]
    unsafe fn dots<const R: usize, const T: usize>(
        sums: Sums<Self, R, T>,
        quads: &[Lanes32<u32>],
        vector: usize,
        a: [*const i8; T],
    ) -> Sums<Self, R, T>
    where
        Self: Sized,
    {
        // SAFETY: the caller's.
        unsafe { by_fours::<Self, R, T>(sums, quads, vector, a) }
    }
    /// i32 for each lane
    unsafe fn scales(x: &[u32; LANES]) -> Self::I;
    /// `sum + x * scales`
    unsafe fn add_scaled(sum: Self::I, x: Self::I, scales: Self::I) -> Self::I;
    /// `sum + x[0] * y[0] + x[1] * y[1]` for pairs of i16, the first in the low half.
    unsafe fn add_pairs(sum: Self::I, x: &[u32; LANES], y: i32) -> Self::I;
    unsafe fn to_f(x: Self::I) -> Self::F;
    unsafe fn load(x: &[f32; LANES]) -> Self::F;
    unsafe fn store(x: Self::F, out: &mut [f32; LANES]);
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F;
}

/// [`Lanes::dots`], four values at a time.
///
/// # Safety
/// The CPU has the instructions of `V`; each token has at least four values for a quad.
#[inline(always)]
pub unsafe fn by_fours<V: Lanes, const R: usize, const T: usize>(
    mut sums: Sums<V, R, T>,
    quads: &[Lanes32<u32>],
    vector: usize,
    a: [*const i8; T],
) -> Sums<V, R, T> {
    // (Indices: iterators, closures and `array::from_fn` are not always inlined into something as long as this.)
    for i in 0..quads.len() {
        let quad = &quads[i];
        // SAFETY: the caller's.
        unsafe {
            let mut w = [V::weights(&quad[vector].0); R];
            for r in 1..R {
                w[r] = V::weights(&quad[vector + r].0);
            }
            for t in 0..T {
                let bytes = V::bytes(i32::from_le(a[t].add(4 * i).cast::<i32>().read_unaligned()));
                for r in 0..R {
                    sums[t][r] = V::dot4(sums[t][r], w[r], bytes);
                }
            }
        }
    }
    sums
}

/// Plain Rust: the scalar twin.
pub struct Portable;

// SAFETY: no special instructions are used.
unsafe impl Layout for Portable {
    const OFFSET: bool = false;
}

// SAFETY: as above.
unsafe impl Lanes for Portable {
    type I = [i32; LANES];
    type F = [f32; LANES];
    type W = [u32; LANES];
    type A = [i8; 4];

    unsafe fn splat(x: i32) -> Self::I {
        [x; LANES]
    }
    unsafe fn splat_f(x: f32) -> Self::F {
        [x; LANES]
    }
    unsafe fn weights(w: &[u32; LANES]) -> Self::W {
        *w
    }
    unsafe fn bytes(a: i32) -> Self::A {
        a.to_le_bytes().map(|a| a as i8)
    }
    unsafe fn dot4(sum: Self::I, w: Self::W, a: Self::A) -> Self::I {
        std::array::from_fn(|r| {
            let w = w[r].to_le_bytes();
            let product = |j: usize| i32::from(w[j] as i8) * i32::from(a[j]);
            sum[r] + product(0) + product(1) + product(2) + product(3)
        })
    }
    unsafe fn scales(x: &[u32; LANES]) -> Self::I {
        x.map(|x| x as i32)
    }
    unsafe fn add_scaled(sum: Self::I, x: Self::I, scales: Self::I) -> Self::I {
        std::array::from_fn(|r| sum[r] + x[r] * scales[r])
    }
    unsafe fn add_pairs(sum: Self::I, x: &[u32; LANES], y: i32) -> Self::I {
        let (low, high) = (i32::from(y as i16), y >> 16);
        std::array::from_fn(|r| sum[r] + i32::from(x[r] as i16) * low + ((x[r] as i32) >> 16) * high)
    }
    unsafe fn to_f(x: Self::I) -> Self::F {
        x.map(|x| x as f32)
    }
    unsafe fn load(x: &[f32; LANES]) -> Self::F {
        *x
    }
    unsafe fn store(x: Self::F, out: &mut [f32; LANES]) {
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
