//! Products of panels with registers of 256 bits, of which there are 16: a tile is two vectors of eight rows by some tokens. Sums of
//! a group's products take most of the registers; those of a block wait in memory.

use super::super::activations::{Inputs, NarrowBlock, WideBlock};
use super::super::lanes::Portable;
use super::super::panel::{Lanes32, PANEL_ROWS, Panel};
use super::super::panel_dot::{Kernel, Narrow, Wide};
use super::super::{NARROW, WIDE};
use super::sums256::{Sums, add_pairs};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Vectors of rows in a tile.
const PAIR: usize = 2;
/// Values of a lane in a register of bytes.
const QUAD: usize = 4;

type Tile<const T: usize> = [[__m256i; PAIR]; T];

/// # Safety
/// AVX2; 32 bytes can be read.
#[inline(always)]
unsafe fn load(from: *const i32) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// Four bytes for every lane.
///
/// # Safety
/// AVX2; four bytes can be read.
#[inline(always)]
unsafe fn spread<A>(from: *const A) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

/// Sums of products of `count` quads, and `sums` if they do not start at zero (`ZERO`).
///
/// # Safety
/// The CPU has the instructions of `S`; so many quads of weights, a panel's row apart, and of activations can be read.
#[inline(always)]
unsafe fn quads<S: Sums, const T: usize, const ZERO: bool>(
    mut sums: Tile<T>,
    weights: *const i32,
    a: [*const i8; T],
    count: usize,
) -> Tile<T> {
    // SAFETY: the caller's.
    unsafe {
        for i in 0..count {
            let w = [load(weights.add(i * PANEL_ROWS)), load(weights.add(i * PANEL_ROWS + 8))];
            for t in 0..T {
                let a = spread(a[t].add(QUAD * i));
                for r in 0..PAIR {
                    sums[t][r] = if ZERO && i == 0 { S::first(w[r], a) } else { S::add(sums[t][r], w[r], a) };
                }
            }
        }
        sums
    }
}

/// Adds products of `count` pairs of words to sums of i32.
///
/// # Safety
/// AVX2; so many pairs of weights, a panel's row apart, and of activations can be read.
#[inline(always)]
unsafe fn pairs<const T: usize>(
    mut sums: Tile<T>,
    weights: *const i32,
    a: &[[i16; WIDE]; T],
    first: usize,
    count: usize,
) -> Tile<T> {
    assert!(2 * (first + count) <= WIDE);
    // SAFETY: the caller's.
    unsafe {
        for i in 0..count {
            let w = [load(weights.add(i * PANEL_ROWS)), load(weights.add(i * PANEL_ROWS + 8))];
            for t in 0..T {
                let a = spread(a[t].as_ptr().add(2 * (first + i)));
                for r in 0..PAIR {
                    sums[t][r] = add_pairs(sums[t][r], w[r], a);
                }
            }
        }
        sums
    }
}

/// Widens 16 bytes at a time.
///
/// # Safety
/// AVX2; `values` bytes can be read, and so many words written.
#[inline(always)]
unsafe fn widen(from: *const i8, values: usize, to: *mut i16) {
    for at in (0..values).step_by(16) {
        // SAFETY: the caller's.
        unsafe {
            let words = _mm256_cvtepi8_epi16(_mm_loadu_si128(from.add(at).cast()));
            _mm256_storeu_si256(to.add(at).cast(), words);
        }
    }
}

/// Adds block `index` to f32 sums: `products`, and mins if the panel has some.
///
/// # Safety
/// AVX2; indices are below what [`Kernel::check`] and [`Kernel::row`] have seen.
#[inline(always)]
unsafe fn add_block<const T: usize, const GROUPS: usize, const MINS: bool>(
    panel: &Panel,
    rows: [*const WideBlock; T],
    index: usize,
    products: Tile<T>,
    lanes: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut offsets = [[_mm256_setzero_si256(); PAIR]; T];
        if MINS {
            let mins = panel.mins.as_ptr().add(index * GROUPS / 2).cast::<i32>().add(lanes);
            for i in 0..GROUPS / 2 {
                let m = [load(mins.add(i * PANEL_ROWS)), load(mins.add(i * PANEL_ROWS + 8))];
                for t in 0..T {
                    let a = rows[t].add(index);
                    let sums = if GROUPS == 8 { (*a).sums32.as_ptr() } else { (*a).sums.as_ptr() };
                    let pair = spread(sums.add(2 * i));
                    for r in 0..PAIR {
                        offsets[t][r] = _mm256_add_epi32(offsets[t][r], _mm256_madd_epi16(m[r], pair));
                    }
                }
            }
        }
        for r in 0..PAIR {
            let d = _mm256_loadu_ps(panel.d.as_ptr().add(index).cast::<f32>().add(lanes + 8 * r));
            for t in 0..T {
                let (a, at) = (_mm256_set1_ps((*rows[t].add(index)).d), sums.add(t * PANEL_ROWS + lanes + 8 * r));
                let product = _mm256_mul_ps(_mm256_mul_ps(d, a), _mm256_cvtepi32_ps(products[t][r]));
                let mut sum = _mm256_add_ps(_mm256_loadu_ps(at), product);
                if MINS {
                    let dmin = panel.dmin.as_ptr().add(index).cast::<f32>().add(lanes + 8 * r);
                    let scale = _mm256_mul_ps(_mm256_loadu_ps(dmin), a);
                    sum = _mm256_sub_ps(sum, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(offsets[t][r])));
                }
                _mm256_storeu_ps(at, sum);
            }
        }
    }
}

/// Wide blocks of bytes in `GROUPS` groups, added in `STEPS` steps.
pub struct Bytes<S, const GROUPS: usize, const STEPS: usize, const MINS: bool>(PhantomData<S>);

impl<S: Sums, const GROUPS: usize, const STEPS: usize, const MINS: bool> Kernel for Bytes<S, GROUPS, STEPS, MINS> {
    type Activation = WideBlock;

    #[inline(always)]
    fn check(panel: &Panel) {
        Wide::<Portable, GROUPS, MINS>::check(panel);
    }

    #[inline(always)]
    fn row(panel: &Panel, inputs: &Inputs<'_>, index: usize) -> *const WideBlock {
        Wide::<Portable, GROUPS, MINS>::row(panel, inputs, index)
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const T: usize>(
        panel: &Panel,
        rows: [*const WideBlock; T],
        vector: usize,
        sums: *mut Lanes32<f32>,
    ) {
        let count = WIDE / QUAD / STEPS;
        for lanes in (16 * vector..16 * (vector + R)).step_by(8 * PAIR) {
            for index in 0..panel.blocks {
                // SAFETY: all indices are below what the caller has checked: blocks, and inside them steps, groups and lanes.
                unsafe {
                    let weights = panel.q.as_ptr().add(index * (WIDE / QUAD)).cast::<i32>().add(lanes);
                    let scales = panel.scales.as_ptr().add(index * GROUPS).cast::<i32>().add(lanes);
                    let mut products = [[_mm256_setzero_si256(); PAIR]; T];
                    for step in 0..STEPS {
                        let mut dots = [[_mm256_setzero_si256(); PAIR]; T];
                        let mut bytes = [rows[0].cast::<i8>(); T];
                        for t in 0..T {
                            let a = rows[t].add(index);
                            if !MINS {
                                dots[t] = [_mm256_set1_epi32(S::start::<STEPS>(&*a, step)); PAIR];
                            }
                            bytes[t] = (&raw const (*a).q).cast::<i8>().add(step * count * QUAD);
                        }
                        let weights = weights.add(step * count * PANEL_ROWS);
                        let dots = match MINS {
                            true => quads::<S, T, true>(dots, weights, bytes, count),
                            false => quads::<S, T, false>(dots, weights, bytes, count),
                        };
                        let scales = scales.add(step * GROUPS / STEPS * PANEL_ROWS);
                        for r in 0..PAIR {
                            let scales = load(scales.add(8 * r));
                            for t in 0..T {
                                products[t][r] = S::add_scaled(products[t][r], dots[t][r], scales);
                            }
                        }
                    }
                    add_block::<T, GROUPS, MINS>(panel, rows, index, products, lanes, sums.cast());
                }
            }
        }
    }
}

/// Wide blocks of words.
pub struct Words;

impl Kernel for Words {
    type Activation = WideBlock;

    #[inline(always)]
    fn check(panel: &Panel) {
        assert!(panel.q.len() >= panel.blocks * (WIDE / 2) && panel.d.len() >= panel.blocks);
    }

    #[inline(always)]
    fn row(panel: &Panel, inputs: &Inputs<'_>, index: usize) -> *const WideBlock {
        Wide::<Portable, 8, false>::row(panel, inputs, index)
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const T: usize>(
        panel: &Panel,
        rows: [*const WideBlock; T],
        vector: usize,
        sums: *mut Lanes32<f32>,
    ) {
        let mut wide = [[0i16; WIDE]; T];
        for index in 0..panel.blocks {
            // SAFETY: all indices are below what the caller has checked: blocks, and inside them values and lanes.
            unsafe {
                for t in 0..T {
                    widen((&raw const (*rows[t].add(index)).q).cast(), WIDE, wide[t].as_mut_ptr());
                }
                for lanes in (16 * vector..16 * (vector + R)).step_by(8 * PAIR) {
                    let weights = panel.q.as_ptr().add(index * (WIDE / 2)).cast::<i32>().add(lanes);
                    let products = pairs::<T>([[_mm256_setzero_si256(); PAIR]; T], weights, &wide, 0, WIDE / 2);
                    add_block::<T, 8, false>(panel, rows, index, products, lanes, sums.cast());
                }
            }
        }
    }
}

/// Adds narrow block `index`, which meets block `place` of the activations, to f32 sums.
///
/// # Safety
/// As of [`add_block`].
#[inline(always)]
unsafe fn add_narrow<const T: usize, const MINS: bool>(
    mut done: [[__m256; PAIR]; T],
    panel: &Panel,
    rows: [*const NarrowBlock; T],
    [index, place]: [usize; 2],
    products: Tile<T>,
    lanes: usize,
) -> [[__m256; PAIR]; T] {
    // SAFETY: the caller's.
    unsafe {
        for r in 0..PAIR {
            let d = _mm256_loadu_ps(panel.d.as_ptr().add(index).cast::<f32>().add(lanes + 8 * r));
            for t in 0..T {
                let scale = _mm256_mul_ps(d, _mm256_set1_ps((*rows[t].add(place)).d));
                let product = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(products[t][r]));
                done[t][r] = _mm256_add_ps(done[t][r], product);
            }
            if MINS {
                let dmin = _mm256_loadu_ps(panel.dmin.as_ptr().add(index).cast::<f32>().add(lanes + 8 * r));
                for t in 0..T {
                    let sum = _mm256_set1_ps((*rows[t].add(place)).sum);
                    done[t][r] = _mm256_sub_ps(done[t][r], _mm256_mul_ps(dmin, sum));
                }
            }
        }
        done
    }
}

/// # Safety
/// AVX2; sums of `T` tokens and these lanes can be read.
#[inline(always)]
unsafe fn sums_of<const T: usize>(sums: *const Lanes32<f32>, lanes: usize) -> [[__m256; PAIR]; T] {
    // SAFETY: the caller's.
    unsafe {
        let mut done = [[_mm256_setzero_ps(); PAIR]; T];
        for t in 0..T {
            for r in 0..PAIR {
                done[t][r] = _mm256_loadu_ps(sums.add(t).cast::<f32>().add(lanes + 8 * r));
            }
        }
        done
    }
}

/// # Safety
/// AVX2; sums of `T` tokens and these lanes can be written.
#[inline(always)]
unsafe fn keep<const T: usize>(done: [[__m256; PAIR]; T], sums: *mut Lanes32<f32>, lanes: usize) {
    for t in 0..T {
        for r in 0..PAIR {
            // SAFETY: the caller's.
            unsafe { _mm256_storeu_ps(sums.add(t).cast::<f32>().add(lanes + 8 * r), done[t][r]) };
        }
    }
}

/// Narrow blocks of bytes.
pub struct NarrowBytes<S, const MINS: bool>(PhantomData<S>);

impl<S: Sums, const MINS: bool> Kernel for NarrowBytes<S, MINS> {
    type Activation = NarrowBlock;

    #[inline(always)]
    fn check(panel: &Panel) {
        Narrow::<Portable, MINS>::check(panel);
        assert!(panel.shared.is_power_of_two());
    }

    #[inline(always)]
    fn row(panel: &Panel, inputs: &Inputs<'_>, index: usize) -> *const NarrowBlock {
        Narrow::<Portable, MINS>::row(panel, inputs, index)
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const T: usize>(
        panel: &Panel,
        rows: [*const NarrowBlock; T],
        vector: usize,
        sums: *mut Lanes32<f32>,
    ) {
        let shared = panel.shared.trailing_zeros();
        let steps = if MINS { S::STEPS_WITH_MINS } else { 1 };
        let count = NARROW / QUAD / steps;
        for lanes in (16 * vector..16 * (vector + R)).step_by(8 * PAIR) {
            // SAFETY: all indices are below what the caller has checked: blocks, and inside them steps and lanes.
            unsafe {
                let mut done = sums_of::<T>(sums, lanes);
                for index in 0..panel.blocks {
                    let place = index >> shared;
                    let weights = panel.q.as_ptr().add(index * (NARROW / QUAD)).cast::<i32>().add(lanes);
                    let mut products = [[_mm256_setzero_si256(); PAIR]; T];
                    for step in 0..steps {
                        let mut dots = [[_mm256_setzero_si256(); PAIR]; T];
                        let mut bytes = [rows[0].cast::<i8>(); T];
                        for t in 0..T {
                            let a = rows[t].add(place);
                            if !MINS {
                                dots[t] = [_mm256_set1_epi32(S::narrow_start(&*a)); PAIR];
                            }
                            bytes[t] = (&raw const (*a).q).cast::<i8>().add(step * count * QUAD);
                        }
                        let weights = weights.add(step * count * PANEL_ROWS);
                        let dots = match MINS {
                            true => quads::<S, T, true>(dots, weights, bytes, count),
                            false => quads::<S, T, false>(dots, weights, bytes, count),
                        };
                        for t in 0..T {
                            for r in 0..PAIR {
                                products[t][r] = _mm256_add_epi32(products[t][r], S::whole(dots[t][r]));
                            }
                        }
                    }
                    done = add_narrow::<T, MINS>(done, panel, rows, [index, place], products, lanes);
                }
                keep(done, sums, lanes);
            }
        }
    }
}

/// Narrow blocks of words, each of which meets activations of its own.
pub struct NarrowWords;

/// Narrow blocks whose activations are widened together.
const TOGETHER: usize = WIDE / NARROW;

impl Kernel for NarrowWords {
    type Activation = NarrowBlock;

    #[inline(always)]
    fn check(panel: &Panel) {
        assert!(panel.q.len() >= panel.blocks * (NARROW / 2) && panel.d.len() >= panel.blocks && panel.shared == 1);
    }

    #[inline(always)]
    fn row(panel: &Panel, inputs: &Inputs<'_>, index: usize) -> *const NarrowBlock {
        Narrow::<Portable, false>::row(panel, inputs, index)
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const T: usize>(
        panel: &Panel,
        rows: [*const NarrowBlock; T],
        vector: usize,
        sums: *mut Lanes32<f32>,
    ) {
        let mut wide = [[0i16; WIDE]; T];
        for first in (0..panel.blocks).step_by(TOGETHER) {
            let some = TOGETHER.min(panel.blocks - first);
            // SAFETY: all indices are below what the caller has checked: blocks, and inside them values and lanes.
            unsafe {
                for t in 0..T {
                    for i in 0..some {
                        let a = (&raw const (*rows[t].add(first + i)).q).cast::<i8>();
                        widen(a, NARROW, wide[t].as_mut_ptr().add(NARROW * i));
                    }
                }
                for lanes in (16 * vector..16 * (vector + R)).step_by(8 * PAIR) {
                    let mut done = sums_of::<T>(sums, lanes);
                    for i in 0..some {
                        let weights = panel.q.as_ptr().add((first + i) * (NARROW / 2)).cast::<i32>().add(lanes);
                        let none = [[_mm256_setzero_si256(); PAIR]; T];
                        let products = pairs::<T>(none, weights, &wide, NARROW / 2 * i, NARROW / 2);
                        done = add_narrow::<T, false>(done, panel, rows, [first + i; 2], products, lanes);
                    }
                    keep(done, sums, lanes);
                }
            }
        }
    }
}

/// `rounds` times the products of `N` weights with `T` activations in registers; the number of multiply-adds.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn multiply_adds<S: Sums, const N: usize, const T: usize>(rounds: u32) -> u64 {
    use std::hint::black_box;
    // SAFETY: the caller's.
    unsafe {
        let mut weights = [_mm256_setzero_si256(); N];
        for (i, weights) in weights.iter_mut().enumerate() {
            *weights = _mm256_set1_epi32(black_box(0x0102_0304 + i as i32));
        }
        let mut sums = [[_mm256_set1_epi32(black_box(0)); T]; N];
        for round in 0..rounds {
            for t in 0..T {
                // Not the same in any two rounds: nothing can be computed beforehand.
                let a = _mm256_set1_epi32((round as i32).wrapping_add(t as i32) & 0x7f7f_7f7f);
                for i in 0..N {
                    sums[i][t] = S::add(sums[i][t], weights[i], a);
                }
            }
        }
        for sum in sums.into_iter().flatten() {
            black_box(_mm256_extract_epi64::<0>(sum));
        }
    }
    u64::from(rounds) * (N * T * QUAD * 8) as u64
}
