//! Small products of f32 matrices, for attention: one algorithm over vectors of any length.
//!
//! The order of each sum depends on the kind of product and on the vectors alone, not on how many rows there are: a row's
//! result does not depend on the rows beside it.

/// `c[m, n] += a[m, k] b[k, n]`, or `c[m, n] = a[m, k] b[n, k]`^T; a row of each starts every `strides` values.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Of a, b and c.
    pub strides: [usize; 3],
}

impl Product {
    /// Whether slices of these lengths hold the matrices of [`product`].
    pub(super) fn fits(&self, lens: [usize; 3]) -> bool {
        self.holds([(self.m, self.k), (self.k, self.n), (self.m, self.n)], lens)
    }

    /// Whether slices of these lengths hold the matrices of [`dots`].
    pub(super) fn fits_dots(&self, lens: [usize; 3]) -> bool {
        self.n % 4 == 0 && self.holds([(self.m, self.k), (self.n, self.k), (self.m, self.n)], lens)
    }

    fn holds(&self, shapes: [(usize, usize); 3], lens: [usize; 3]) -> bool {
        let end = |(rows, cols): (usize, usize), stride: usize| match rows {
            0 => Some(0),
            rows => (rows - 1).checked_mul(stride)?.checked_add(cols),
        };
        shapes.into_iter().zip(self.strides).zip(lens).all(|((shape, stride), len)| {
            end(shape, stride).is_some_and(|end| end <= len) && (stride >= shape.1 || shape.0 <= 1)
        })
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
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        std::array::from_fn(|i| self[i] + x[i] * y[i])
    }
    unsafe fn sums(x: [Self; 4]) -> [f32; 4] {
        x.map(|x| (x[0] + x[1]) + (x[2] + x[3]))
    }
}

/// `M` rows of `N` vectors of the result.
///
/// # Safety
/// The CPU has the instructions of `V`; the pointers are to matrices of these sizes.
#[inline(always)]
unsafe fn block<V: Vector, const M: usize, const N: usize>(
    k: usize,
    [a_stride, b_stride, c_stride]: [usize; 3],
    a: *const f32,
    b: *const f32,
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
            for (j, value) in values.iter_mut().enumerate() {
                *value = V::load(b.add(i * b_stride + j * V::LANES));
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
unsafe fn column<V: Vector, const N: usize>(p: &Product, a: *const f32, b: *const f32, c: *mut f32) {
    let mut row = 0;
    while row < p.m {
        // SAFETY: the caller's promise; rows are below `m`.
        unsafe {
            let (a, c) = (a.add(row * p.strides[0]), c.add(row * p.strides[2]));
            row += match p.m - row {
                4.. => {
                    block::<V, 4, N>(p.k, p.strides, a, b, c);
                    4
                }
                2.. => {
                    block::<V, 2, N>(p.k, p.strides, a, b, c);
                    2
                }
                _ => {
                    block::<V, 1, N>(p.k, p.strides, a, b, c);
                    1
                }
            };
        }
    }
}

/// # Safety
/// The CPU has the instructions of `V`, and the slices hold the matrices ([`Product::fits`]).
#[inline(always)]
pub unsafe fn product<V: Vector, const N: usize>(p: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let mut at = 0;
    // SAFETY: columns are below `n`, and the rest is the caller's promise.
    unsafe {
        while at + N * V::LANES <= p.n {
            column::<V, N>(p, a, b.add(at), c.add(at));
            at += N * V::LANES;
        }
        while at + V::LANES <= p.n {
            column::<V, 1>(p, a, b.add(at), c.add(at));
            at += V::LANES;
        }
        for at in at..p.n {
            for row in 0..p.m {
                let sum = &mut *c.add(row * p.strides[2] + at);
                for i in 0..p.k {
                    *sum += *a.add(row * p.strides[0] + i) * *b.add(i * p.strides[1] + at);
                }
            }
        }
    }
}

/// `M` rows of four columns of [`dots`].
///
/// # Safety
/// The CPU has the instructions of `V`; the pointers are to matrices of these sizes.
#[inline(always)]
unsafe fn dots_block<V: Vector, const M: usize>(
    k: usize,
    [a_stride, b_stride, c_stride]: [usize; 3],
    a: *const f32,
    b: *const f32,
    c: *mut f32,
) {
    let whole = k / V::LANES * V::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); 4]; M];
        let mut i = 0;
        while i < whole {
            let mut values = [V::splat(0.0); 4];
            for (j, value) in values.iter_mut().enumerate() {
                *value = V::load(b.add(j * b_stride + i));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = V::load(a.add(row * a_stride + i));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = sum.add_product(factor, value);
                }
            }
            i += V::LANES;
        }
        for (row, sums) in sums.iter().enumerate() {
            let mut out = V::sums(*sums);
            for i in whole..k {
                for (j, out) in out.iter_mut().enumerate() {
                    *out += *a.add(row * a_stride + i) * *b.add(j * b_stride + i);
                }
            }
            c.add(row * c_stride).cast::<[f32; 4]>().write(out);
        }
    }
}

/// `c[m, n] = a[m, k] b[n, k]`^T for `n` a multiple of four, `M` (a power of two, at most 4) rows at a time.
///
/// # Safety
/// The CPU has the instructions of `V`, and the slices hold the matrices ([`Product::fits_dots`]).
#[inline(always)]
pub unsafe fn dots<V: Vector, const M: usize>(p: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    for col in (0..p.n).step_by(4) {
        let mut row = 0;
        while row < p.m {
            // SAFETY: rows are below `m` and columns below `n`, and the rest is the caller's promise.
            unsafe {
                let (a, b, c) = (a.add(row * p.strides[0]), b.add(col * p.strides[1]), c.add(row * p.strides[2] + col));
                row += match p.m - row {
                    rows if rows >= M => {
                        dots_block::<V, M>(p.k, p.strides, a, b, c);
                        M
                    }
                    2.. => {
                        dots_block::<V, 2>(p.k, p.strides, a, b, c);
                        2
                    }
                    _ => {
                        dots_block::<V, 1>(p.k, p.strides, a, b, c);
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
                simd.product(&p, &a, &b, &mut c);
                for row in 0..m {
                    for col in 0..n + 2 {
                        let at = row * (n + 2) + col;
                        let dot = |i: usize| f64::from(a[row * (k + 1) + i]) * f64::from(b[i * (n + 3) + col]);
                        let sum = if col < n { (0..k).map(dot).sum() } else { 0.0 };
                        let exact = f64::from(before[at]) + sum;
                        assert!((f64::from(c[at]) - exact).abs() <= 2e-5, "{m} {k} {n}: {} is not {exact}", c[at]);
                    }
                    let mut alone = before[row * (n + 2)..(row + 1) * (n + 2)].to_vec();
                    simd.product(&Product { m: 1, ..p }, &a[row * (k + 1)..], &b, &mut alone);
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
                simd.dots(&p, &a, &b, &mut c);
                for row in 0..m {
                    for col in 0..n + 2 {
                        let product = |i: usize| f64::from(a[row * (k + 1) + i]) * f64::from(b[col * (k + 3) + i]);
                        let exact = if col < n { (0..k).map(product).sum() } else { 7.0 };
                        let found = f64::from(c[row * (n + 2) + col]);
                        assert!((found - exact).abs() <= 2e-5, "{m} {k} {n}: {found} is not {exact}");
                    }
                    let mut alone = vec![7.0; n + 2];
                    simd.dots(&Product { m: 1, ..p }, &a[row * (k + 1)..], &b, &mut alone);
                    assert_eq!(alone, c[row * (n + 2)..(row + 1) * (n + 2)]);
                }
            }
        }
    }
}
