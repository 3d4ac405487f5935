//! Rows of a product's second matrix as they are kept: numbers that are widened in registers, on their way to it.
//!
//! A value is the same f32 here as in a row that was dequantized beforehand, so both ways give the same sums.

use super::prefetch;
use super::tiles::Vector;
use half::f16;
use quant::GgmlType;

/// Values and bytes of the blocks of [`Cells::Q8_0`] and [`Cells::Q4_0`] (ggml-common.h): an f16 scale, then integers.
const BLOCK: usize = 32;
const SCALE_BYTES: usize = 2;
const Q8_0_BYTES: usize = SCALE_BYTES + BLOCK;
const Q4_0_BYTES: usize = SCALE_BYTES + BLOCK / 2;

/// How far ahead of a pair of vectors its row's memory is asked for, in bytes: a cache is read in pieces of a few pages, now of
/// keys and now of values, and the CPU's own prefetcher begins anew with each.
const AHEAD: usize = 8192;

/// Rows that a product reads. Strides of a [`super::tiles::Product`] are in elements of the slice.
#[derive(Clone, Copy, Debug)]
pub enum Cells<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
    Q8_0(&'a [u8]),
    Q4_0(&'a [u8]),
}

impl<'a> Cells<'a> {
    /// Rows of `row` bytes, and the stride from one to the next. `None` if the type is not read as it is kept, or the
    /// bytes are not aligned.
    pub fn packed(ty: GgmlType, bytes: &'a [u8], row: usize) -> Option<(Cells<'a>, usize)> {
        let halves = || bytemuck::try_cast_slice(bytes).ok();
        match ty {
            GgmlType::F32 => bytemuck::try_cast_slice(bytes).ok().map(|values| (Cells::F32(values), row / 4)),
            GgmlType::F16 => halves().map(|values| (Cells::F16(values), row / 2)),
            GgmlType::BF16 => halves().map(|values| (Cells::Bf16(values), row / 2)),
            GgmlType::Q8_0 => Some((Cells::Q8_0(bytes), row)),
            GgmlType::Q4_0 => Some((Cells::Q4_0(bytes), row)),
            _ => None,
        }
    }

    /// Elements there are, and those that a row of `values` values takes.
    pub(super) fn extent(self, values: usize) -> Option<(usize, usize)> {
        let blocks = |bytes: usize| (values % BLOCK == 0).then_some(values / BLOCK * bytes);
        Some(match self {
            Cells::F32(all) => (all.len(), values),
            Cells::F16(all) | Cells::Bf16(all) => (all.len(), values),
            Cells::Q8_0(all) => (all.len(), blocks(Q8_0_BYTES)?),
            Cells::Q4_0(all) => (all.len(), blocks(Q4_0_BYTES)?),
        })
    }

    /// All but the first `count` elements.
    pub fn skip(self, count: usize) -> Cells<'a> {
        match self {
            Cells::F32(all) => Cells::F32(&all[count..]),
            Cells::F16(all) => Cells::F16(&all[count..]),
            Cells::Bf16(all) => Cells::Bf16(&all[count..]),
            Cells::Q8_0(all) => Cells::Q8_0(&all[count..]),
            Cells::Q4_0(all) => Cells::Q4_0(&all[count..]),
        }
    }
}

/// Where rows are read from.
///
/// # Safety
/// Methods may only be called on CPUs that have the instructions of `V`, for values that are there; `i` of [`Source::load`]
/// is a multiple of `V::LANES`.
pub unsafe trait Source<V: Vector>: Copy {
    /// `V::LANES` values of the row that starts at this element, from its `i`-th on.
    unsafe fn load(self, row: usize, i: usize) -> V;
    /// Those and the next ones, `i` being a multiple of `2 * V::LANES`: what they share is read once.
    #[inline(always)]
    unsafe fn load_pair(self, row: usize, i: usize) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe { [self.load(row, i), self.load(row, i + V::LANES)] }
    }
    /// One value.
    unsafe fn one(self, row: usize, i: usize) -> f32;
}

#[inline(always)]
fn ask(pair: *const u8) {
    prefetch(pair.wrapping_add(AHEAD), 1);
}

/// Plain numbers.
#[derive(Clone, Copy)]
pub struct F32(pub *const f32);
#[derive(Clone, Copy)]
pub struct F16(pub *const u16);
#[derive(Clone, Copy)]
pub struct Bf16(pub *const u16);
#[derive(Clone, Copy)]
pub struct Q8_0(pub *const u8);
#[derive(Clone, Copy)]
pub struct Q4_0(pub *const u8);

// SAFETY: reads are of the values asked for.
unsafe impl<V: Vector> Source<V> for F32 {
    #[inline(always)]
    unsafe fn load(self, row: usize, i: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(self.0.add(row + i)) }
    }
    #[inline(always)]
    unsafe fn one(self, row: usize, i: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(row + i) }
    }
}

// SAFETY: reads are of the values asked for.
unsafe impl<V: Vector> Source<V> for F16 {
    #[inline(always)]
    unsafe fn load(self, row: usize, i: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::widen_f16(self.0.add(row + i)) }
    }
    #[inline(always)]
    unsafe fn load_pair(self, row: usize, i: usize) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let from = self.0.add(row + i);
            ask(from.cast());
            [V::widen_f16(from), V::widen_f16(from.add(V::LANES))]
        }
    }
    #[inline(always)]
    unsafe fn one(self, row: usize, i: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { f16::from_bits(*self.0.add(row + i)).to_f32() }
    }
}

// SAFETY: reads are of the values asked for.
unsafe impl<V: Vector> Source<V> for Bf16 {
    #[inline(always)]
    unsafe fn load(self, row: usize, i: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::widen_bf16(self.0.add(row + i)) }
    }
    #[inline(always)]
    unsafe fn load_pair(self, row: usize, i: usize) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let from = self.0.add(row + i);
            ask(from.cast());
            [V::widen_bf16(from), V::widen_bf16(from.add(V::LANES))]
        }
    }
    #[inline(always)]
    unsafe fn one(self, row: usize, i: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { f32::from_bits(u32::from(*self.0.add(row + i)) << 16) }
    }
}

// SAFETY: reads are of the blocks of the values asked for; a vector is inside one block.
unsafe impl<V: Vector> Source<V> for Q8_0 {
    #[inline(always)]
    unsafe fn load(self, row: usize, i: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let block = self.0.add(row + i / BLOCK * Q8_0_BYTES);
            let integers = V::integers(block.add(SCALE_BYTES + i % BLOCK).cast());
            integers.times(V::splat_f16(block.cast()))
        }
    }
    #[inline(always)]
    unsafe fn load_pair(self, row: usize, i: usize) -> [V; 2] {
        // SAFETY: the caller's promise; both vectors are inside one block.
        unsafe {
            let block = self.0.add(row + i / BLOCK * Q8_0_BYTES);
            ask(block);
            let (from, scale) = (block.add(SCALE_BYTES + i % BLOCK).cast::<i8>(), V::splat_f16(block.cast()));
            [V::integers(from).times(scale), V::integers(from.add(V::LANES)).times(scale)]
        }
    }
    #[inline(always)]
    unsafe fn one(self, row: usize, i: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let block = self.0.add(row + i / BLOCK * Q8_0_BYTES);
            let scale = f16::from_bits(block.cast::<u16>().read_unaligned()).to_f32();
            f32::from(*block.add(SCALE_BYTES + i % BLOCK).cast::<i8>()) * scale
        }
    }
}

// SAFETY: as above; a vector is inside the lower or the upper half of one block.
unsafe impl<V: Vector> Source<V> for Q4_0 {
    #[inline(always)]
    unsafe fn load(self, row: usize, i: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let block = self.0.add(row + i / BLOCK * Q4_0_BYTES);
            let half = BLOCK / 2;
            let shift = 4 * (i % BLOCK / half) as u32;
            let integers = V::nibbles_less_8(block.add(SCALE_BYTES + i % half), shift);
            integers.times(V::splat_f16(block.cast()))
        }
    }
    #[inline(always)]
    unsafe fn load_pair(self, row: usize, i: usize) -> [V; 2] {
        // SAFETY: the caller's promise; both vectors are inside one block.
        unsafe {
            let block = self.0.add(row + i / BLOCK * Q4_0_BYTES);
            ask(block);
            let scale = V::splat_f16(block.cast());
            let [first, second] = V::nibble_pair(block.add(SCALE_BYTES), i % BLOCK);
            [first.times(scale), second.times(scale)]
        }
    }
    #[inline(always)]
    unsafe fn one(self, row: usize, i: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let block = self.0.add(row + i / BLOCK * Q4_0_BYTES);
            let half = BLOCK / 2;
            let scale = f16::from_bits(block.cast::<u16>().read_unaligned()).to_f32();
            let nibble = *block.add(SCALE_BYTES + i % half) >> (4 * (i % BLOCK / half)) & 15;
            (f32::from(nibble) - 8.0) * scale
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simd;
    use crate::simd::SimdLevel;
    use crate::simd::tiles::Product;

    const TYPES: [GgmlType; 5] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0];

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 101.0 - 10.0).collect()
    }

    /// Rows as they are kept, each followed by what belongs to none, and the same rows widened.
    fn rows(ty: GgmlType, rows: usize, cols: usize, row: usize) -> (Vec<f32>, Vec<f32>) {
        let used = ty.row_bytes(cols).unwrap();
        // Floats, so that the bytes are aligned.
        let mut packed = vec![f32::NAN; rows * row / 4];
        let mut wide = vec![0f32; rows * cols];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut packed);
        for (index, (bytes, wide)) in bytes.chunks_exact_mut(row).zip(wide.chunks_exact_mut(cols)).enumerate() {
            quant::quantize_cache_row(ty, &numbers(cols, index), &mut bytes[..used]).unwrap();
            quant::dequantize_row(ty, &bytes[..used], wide).unwrap();
        }
        (packed, wide)
    }

    #[test]
    fn packed_rows_give_what_widened_ones_give() {
        for ty in TYPES {
            let whole_blocks = matches!(ty, GgmlType::Q8_0 | GgmlType::Q4_0);
            for (m, cells, dim) in [(1, 4, 64), (2, 64, 128), (3, 12, 96), (8, 20, 32), (5, 8, 100), (1, 0, 32)] {
                if whole_blocks && dim % BLOCK != 0 {
                    continue;
                }
                let row = ty.row_bytes(dim).unwrap().next_multiple_of(4) + 8;
                let (packed, wide) = rows(ty, cells, dim, row);
                let (kept, stride) = Cells::packed(ty, bytemuck::cast_slice(&packed), row).unwrap();
                for simd in SimdLevel::ALL.into_iter().filter_map(Simd::with) {
                    let dots = |b, stride| {
                        let mut c = vec![0f32; m * cells];
                        let p = Product { m, k: dim, n: cells, strides: [dim, stride, cells] };
                        simd.dots(&p, &numbers(m * dim, 7), b, &mut c);
                        c
                    };
                    let found = dots(kept, stride);
                    assert_eq!(found, dots(Cells::F32(&wide), dim), "{ty} {:?}", simd.level());
                    assert!(found.iter().all(|x| x.is_finite()));
                    let sums = |b, stride| {
                        let mut c = numbers(m * dim, 3);
                        let p = Product { m, k: cells, n: dim, strides: [cells, stride, dim] };
                        simd.product(&p, &numbers(m * cells, 9), b, &mut c);
                        c
                    };
                    let found = sums(kept, stride);
                    assert_eq!(found, sums(Cells::F32(&wide), dim), "{ty} {:?}", simd.level());
                    assert!(found.iter().all(|x| x.is_finite()));
                }
            }
        }
    }

    #[test]
    fn rows_that_end_too_soon_are_refused() {
        for ty in TYPES {
            let row = ty.row_bytes(64).unwrap();
            let (packed, _) = rows(ty, 4, 64, row);
            let (kept, stride) = Cells::packed(ty, bytemuck::cast_slice(&packed), row).unwrap();
            let (a, c) = (numbers(64, 0), numbers(64, 0));
            let dots = Product { m: 1, k: 64, n: 4, strides: [64, stride, 64] };
            let sums = Product { m: 1, k: 4, n: 64, strides: [64, stride, 64] };
            assert!(dots.fits_dots(&a, kept, &c) && sums.fits(&a, kept, &c), "{ty}");
            assert!(!dots.fits_dots(&a, kept.skip(1), &c) && !sums.fits(&a, kept.skip(1), &c), "{ty}");
            let narrow = Product { strides: [64, stride - 1, 64], ..dots };
            assert!(!narrow.fits_dots(&a, kept, &c), "{ty}");
        }
        assert!(Cells::packed(GgmlType::Q5_1, &[0; 48], 24).is_none(), "is widened beforehand");
        let odd = bytemuck::cast_slice::<f32, u8>(&[0.0; 4]);
        assert!(Cells::packed(GgmlType::F16, &odd[1..9], 8).is_none(), "not aligned");
    }
}
