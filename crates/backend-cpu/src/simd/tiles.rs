//! Small products of f32 matrices, for attention: one algorithm over vectors of any length.
//!
//! The order of each sum depends on the kind of product and on the vectors alone, not on how many rows there are: a row's
//! result does not depend on the rows beside it.

use super::cells::{Bf16, Cells, F16, F32, Q4_0, Q8_0, Source};
use std::ops::Range;

/// `c[m, n] += a[m, k] b[k, n]`, or `c[m, n] = a[m, k] b[n, k]`^T; a row of each starts every `strides` elements.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Of a, b and c.
    pub strides: [usize; 3],
}

impl Product {
    /// Whether the slices hold the matrices of [`product`].
    pub(super) fn fits(&self, a: &[f32], b: Cells<'_>, c: &[f32]) -> bool {
        self.holds([(self.m, self.k), (self.k, self.n), (self.m, self.n)], a, b, c)
    }

    /// Whether the slices hold the matrices of [`dots`].
    pub(super) fn fits_dots(&self, a: &[f32], b: Cells<'_>, c: &[f32]) -> bool {
        self.n % 4 == 0 && self.holds([(self.m, self.k), (self.n, self.k), (self.m, self.n)], a, b, c)
    }

    fn holds(&self, shapes: [(usize, usize); 3], a: &[f32], b: Cells<'_>, c: &[f32]) -> bool {
        let [a_shape, (b_rows, b_cols), c_shape] = shapes;
        let Some((b_len, b_cols)) = b.extent(b_cols) else { return false };
        let end = |(rows, cols): (usize, usize), stride: usize| match rows {
            0 => Some(0),
            rows => (rows - 1).checked_mul(stride)?.checked_add(cols),
        };
        [(a_shape, a.len()), ((b_rows, b_cols), b_len), (c_shape, c.len())].into_iter().zip(self.strides).all(
            |((shape, len), stride)| {
                end(shape, stride).is_some_and(|end| end <= len) && (stride >= shape.1 || shape.0 <= 1)
            },
        )
    }
}

/// A vector of f32.
///
/// # Safety
/// Methods may only be called on CPUs that have the instructions; pointers are to `LANES` values.
pub unsafe trait Vector: Copy {
    const LANES: usize;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn splat(x: f32) -> Self;
    /// f16 bits.
    unsafe fn widen_f16(from: *const u16) -> Self;
    /// bf16 bits.
    unsafe fn widen_bf16(from: *const u16) -> Self;
    /// Integers, whose pointer is to as many bytes.
    unsafe fn integers(from: *const i8) -> Self;
    /// `(x >> shift) % 16 - 8` of as many bytes.
    unsafe fn nibbles_less_8(from: *const u8, shift: u32) -> Self;
    /// The values of a block's nibbles less 8, from its `i`-th on, and those after them: the lower half of each byte first.
    #[inline(always)]
    unsafe fn nibble_pair(nibbles: *const u8, i: usize) -> [Self; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let (first, next) = (i, i + Self::LANES);
            [
                Self::nibbles_less_8(nibbles.add(first % 16), 4 * (first / 16) as u32),
                Self::nibbles_less_8(nibbles.add(next % 16), 4 * (next / 16) as u32),
            ]
        }
    }
    /// One f16, which need not be aligned, in all lanes.
    unsafe fn splat_f16(from: *const u16) -> Self;
    unsafe fn times(self, other: Self) -> Self;
    /// `self + x * y`
    unsafe fn add_product(self, x: Self, y: Self) -> Self;
    /// The sum of the lanes of each.
    unsafe fn sums(x: [Self; 4]) -> [f32; 4];
}

/// The scalar twin.
// SAFETY: no special instructions are used.
unsafe impl Vector for [f32; 4] {
    const LANES: usize = 4;
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; arrays of f32 are aligned like f32.
        unsafe { *from.cast() }
    }
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { *to.cast() = self }
    }
    unsafe fn splat(x: f32) -> Self {
        [x; 4]
    }
    unsafe fn widen_f16(from: *const u16) -> Self {
        // SAFETY: as above.
        std::array::from_fn(|i| half::f16::from_bits(unsafe { *from.add(i) }).to_f32())
    }
    unsafe fn widen_bf16(from: *const u16) -> Self {
        // SAFETY: as above.
        std::array::from_fn(|i| f32::from_bits(u32::from(unsafe { *from.add(i) }) << 16))
    }
    unsafe fn integers(from: *const i8) -> Self {
        // SAFETY: as above.
        std::array::from_fn(|i| f32::from(unsafe { *from.add(i) }))
    }
    unsafe fn nibbles_less_8(from: *const u8, shift: u32) -> Self {
        // SAFETY: as above.
        std::array::from_fn(|i| f32::from(unsafe { *from.add(i) } >> shift & 15) - 8.0)
    }
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: as above.
        [half::f16::from_bits(unsafe { from.read_unaligned() }).to_f32(); 4]
    }
    unsafe fn times(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        std::array::from_fn(|i| self[i] + x[i] * y[i])
    }
    unsafe fn sums(x: [Self; 4]) -> [f32; 4] {
        x.map(|x| (x[0] + x[1]) + (x[2] + x[3]))
    }
}

/// `M` rows of `N` vectors of the result, from column `at` of `b` on.
///
/// # Safety
/// The CPU has the instructions of `V`; the pointers are to matrices of these sizes.
#[inline(always)]
unsafe fn block<V: Vector, B: Source<V>, const M: usize, const N: usize>(
    k: usize,
    [a_stride, b_stride, c_stride]: [usize; 3],
    a: *const f32,
    (b, at): (B, usize),
    c: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(c.add(row * c_stride + j * V::LANES));
            }
        }
        for i in 0..k {
            let mut values = [V::splat(0.0); N];
            let (pairs, single) = values.as_chunks_mut::<2>();
            for (j, pair) in pairs.iter_mut().enumerate() {
                *pair = b.load_pair(i * b_stride, at + 2 * j * V::LANES);
            }
            for value in single {
                *value = b.load(i * b_stride, at + (N - 1) * V::LANES);
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = V::splat(*a.add(row * a_stride + i));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = sum.add_product(factor, value);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(c.add(row * c_stride + j * V::LANES));
            }
        }
    }
}

/// All rows of `N` vectors of the result.
///
/// # Safety
/// As [`block`].
#[inline(always)]
unsafe fn column<V: Vector, B: Source<V>, const N: usize>(p: &Product, a: *const f32, b: (B, usize), c: *mut f32) {
    let mut row = 0;
    while row < p.m {
        // SAFETY: the caller's promise; rows are below `m`.
        unsafe {
            let (a, c) = (a.add(row * p.strides[0]), c.add(row * p.strides[2]));
            row += match p.m - row {
                4.. => {
                    block::<V, B, 4, N>(p.k, p.strides, a, b, c);
                    4
                }
                2.. => {
                    block::<V, B, 2, N>(p.k, p.strides, a, b, c);
                    2
                }
                _ => {
                    block::<V, B, 1, N>(p.k, p.strides, a, b, c);
                    1
                }
            };
        }
    }
}

/// # Safety
/// The CPU has the instructions of `V`, and the slices hold the matrices ([`Product::fits`]).
#[inline(always)]
pub unsafe fn product<V: Vector, const N: usize>(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe {
        match b {
            Cells::F32(b) => product_of::<V, _, N>(p, a, F32(b.as_ptr()), c),
            Cells::F16(b) => product_of::<V, _, N>(p, a, F16(b.as_ptr()), c),
            Cells::Bf16(b) => product_of::<V, _, N>(p, a, Bf16(b.as_ptr()), c),
            Cells::Q8_0(b) => product_of::<V, _, N>(p, a, Q8_0(b.as_ptr()), c),
            Cells::Q4_0(b) => product_of::<V, _, N>(p, a, Q4_0(b.as_ptr()), c),
        }
    }
}

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn product_of<V: Vector, B: Source<V>, const N: usize>(p: &Product, a: &[f32], b: B, c: &mut [f32]) {
    let (a, c) = (a.as_ptr(), c.as_mut_ptr());
    let mut at = 0;
    // SAFETY: columns are below `n`, and the rest is the caller's promise.
    unsafe {
        while at + N * V::LANES <= p.n {
            column::<V, B, N>(p, a, (b, at), c.add(at));
            at += N * V::LANES;
        }
        while at + V::LANES <= p.n {
            column::<V, B, 1>(p, a, (b, at), c.add(at));
            at += V::LANES;
        }
        for at in at..p.n {
            for row in 0..p.m {
                let sum = &mut *c.add(row * p.strides[2] + at);
                for i in 0..p.k {
                    *sum += *a.add(row * p.strides[0] + i) * b.one(i * p.strides[1], at);
                }
            }
        }
    }
}

/// Writes a row of [`dots_block`], if there is one: its sums, and the products that fill no vector.
///
/// # Safety
/// As [`dots_block`].
#[inline(always)]
unsafe fn write_row<V: Vector, B: Source<V>>(
    sums: Option<&[V; 4]>,
    rest: Range<usize>,
    a: *const f32,
    (b, col, stride): (B, usize, usize),
    c: *mut f32,
) {
    let Some(sums) = sums else { return };
    // SAFETY: the caller's promise.
    unsafe {
        let mut out = V::sums(*sums);
        for i in rest {
            for (j, out) in out.iter_mut().enumerate() {
                *out += *a.add(i) * b.one((col + j) * stride, i);
            }
        }
        c.cast::<[f32; 4]>().write(out);
    }
}

/// `M` rows of four columns of [`dots`], from row `col` of `b` on.
///
/// # Safety
/// The CPU has the instructions of `V`; the pointers are to matrices of these sizes.
#[inline(always)]
unsafe fn dots_block<V: Vector, B: Source<V>, const M: usize>(
    k: usize,
    [a_stride, b_stride, c_stride]: [usize; 3],
    a: *const f32,
    (b, col): (B, usize),
    c: *mut f32,
) {
    let whole = k / V::LANES * V::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); 4]; M];
        let mut i = 0;
        while i + 2 * V::LANES <= whole {
            let mut pairs = [[V::splat(0.0); 2]; 4];
            for (j, pair) in pairs.iter_mut().enumerate() {
                *pair = b.load_pair((col + j) * b_stride, i);
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                for half in 0..2 {
                    let factor = V::load(a.add(row * a_stride + i + half * V::LANES));
                    for (sum, pair) in sums.iter_mut().zip(pairs) {
                        *sum = sum.add_product(factor, pair[half]);
                    }
                }
            }
            i += 2 * V::LANES;
        }
        if i < whole {
            let mut values = [V::splat(0.0); 4];
            for (j, value) in values.iter_mut().enumerate() {
                *value = b.load((col + j) * b_stride, i);
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = V::load(a.add(row * a_stride + i));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = sum.add_product(factor, value);
                }
            }
        }
        // One after the other: a loop keeps sums in memory.
        let (rest, b) = (whole..k, (b, col, b_stride));
        write_row(sums.first(), rest.clone(), a, b, c);
        write_row(sums.get(1), rest.clone(), a.wrapping_add(a_stride), b, c.wrapping_add(c_stride));
        write_row(sums.get(2), rest.clone(), a.wrapping_add(2 * a_stride), b, c.wrapping_add(2 * c_stride));
        write_row(sums.get(3), rest, a.wrapping_add(3 * a_stride), b, c.wrapping_add(3 * c_stride));
    }
}

/// `c[m, n] = a[m, k] b[n, k]`^T for `n` a multiple of four, `M` (a power of two, at most 4) rows at a time.
///
/// # Safety
/// The CPU has the instructions of `V`, and the slices hold the matrices ([`Product::fits_dots`]).
#[inline(always)]
pub unsafe fn dots<V: Vector, const M: usize>(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe {
        match b {
            Cells::F32(b) => dots_of::<V, _, M>(p, a, F32(b.as_ptr()), c),
            Cells::F16(b) => dots_of::<V, _, M>(p, a, F16(b.as_ptr()), c),
            Cells::Bf16(b) => dots_of::<V, _, M>(p, a, Bf16(b.as_ptr()), c),
            Cells::Q8_0(b) => dots_of::<V, _, M>(p, a, Q8_0(b.as_ptr()), c),
            Cells::Q4_0(b) => dots_of::<V, _, M>(p, a, Q4_0(b.as_ptr()), c),
        }
    }
}

/// # Safety
/// As [`dots`].
#[inline(always)]
unsafe fn dots_of<V: Vector, B: Source<V>, const M: usize>(p: &Product, a: &[f32], b: B, c: &mut [f32]) {
    let (a, c) = (a.as_ptr(), c.as_mut_ptr());
    for col in (0..p.n).step_by(4) {
        let mut row = 0;
        while row < p.m {
            // SAFETY: rows are below `m` and columns below `n`, and the rest is the caller's promise.
            unsafe {
                let (a, b, c) = (a.add(row * p.strides[0]), (b, col), c.add(row * p.strides[2] + col));
                row += match p.m - row {
                    rows if rows >= M => {
                        dots_block::<V, B, M>(p.k, p.strides, a, b, c);
                        M
                    }
                    2.. => {
                        dots_block::<V, B, 2>(p.k, p.strides, a, b, c);
                        2
                    }
                    _ => {
                        dots_block::<V, B, 1>(p.k, p.strides, a, b, c);
                        1
                    }
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simd;
    use crate::simd::SimdLevel;

    fn levels() -> Vec<Simd> {
        SimdLevel::ALL.into_iter().filter_map(Simd::with).collect()
    }

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    #[test]
    fn products_are_their_definition_and_rows_do_not_depend_on_each_other() {
        let sizes = [(1, 1, 1), (2, 64, 64), (3, 80, 17), (7, 33, 100), (4, 128, 64), (9, 5, 3), (5, 0, 8), (0, 4, 8)];
        for (seed, (m, k, n)) in sizes.into_iter().enumerate() {
            let p = Product { m, k, n, strides: [k + 1, n + 3, n + 2] };
            let (a, b) = (numbers(m * (k + 1), seed), numbers(k * (n + 3), seed + 1));
            let before = numbers(m * (n + 2), seed + 2);
            for simd in levels() {
                let mut c = before.clone();
                simd.product(&p, &a, Cells::F32(&b), &mut c);
                for row in 0..m {
                    for col in 0..n + 2 {
                        let at = row * (n + 2) + col;
                        let dot = |i: usize| f64::from(a[row * (k + 1) + i]) * f64::from(b[i * (n + 3) + col]);
                        let sum = if col < n { (0..k).map(dot).sum() } else { 0.0 };
                        let exact = f64::from(before[at]) + sum;
                        assert!((f64::from(c[at]) - exact).abs() <= 2e-5, "{m} {k} {n}: {} is not {exact}", c[at]);
                    }
                    let mut alone = before[row * (n + 2)..(row + 1) * (n + 2)].to_vec();
                    simd.product(&Product { m: 1, ..p }, &a[row * (k + 1)..], Cells::F32(&b), &mut alone);
                    assert_eq!(alone, c[row * (n + 2)..(row + 1) * (n + 2)]);
                }
            }
        }
    }

    #[test]
    fn dots_are_their_definition_and_rows_do_not_depend_on_each_other() {
        let sizes = [(1, 1, 4), (2, 64, 64), (3, 80, 16), (7, 33, 100), (4, 128, 64), (9, 5, 8), (5, 0, 8), (0, 4, 8)];
        for (seed, (m, k, n)) in sizes.into_iter().enumerate() {
            let p = Product { m, k, n, strides: [k + 1, k + 3, n + 2] };
            let (a, b) = (numbers(m * (k + 1), seed), numbers(n * (k + 3), seed + 1));
            for simd in levels() {
                let mut c = vec![7.0; m * (n + 2)];
                simd.dots(&p, &a, Cells::F32(&b), &mut c);
                for row in 0..m {
                    for col in 0..n + 2 {
                        let product = |i: usize| f64::from(a[row * (k + 1) + i]) * f64::from(b[col * (k + 3) + i]);
                        let exact = if col < n { (0..k).map(product).sum() } else { 7.0 };
                        let found = f64::from(c[row * (n + 2) + col]);
                        assert!((found - exact).abs() <= 2e-5, "{m} {k} {n}: {found} is not {exact}");
                    }
                    let mut alone = vec![7.0; n + 2];
                    simd.dots(&Product { m: 1, ..p }, &a[row * (k + 1)..], Cells::F32(&b), &mut alone);
                    assert_eq!(alone, c[row * (n + 2)..(row + 1) * (n + 2)]);
                }
            }
        }
    }
}
