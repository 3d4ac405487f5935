//! Activations rounded to 8 bits, with the sums that offsets of weights need.

use super::panel::Lane16;
use super::{NARROW, WIDE};
use half::f16;
use quant::GgmlType;

/// 256 activations: value `j` is about `d * q[j]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct WideBlock {
    pub q: [i8; WIDE],
    /// -128 times the sum of each 16 values: taken off where kernels need weights without sign. With AVX2, which adds in 16 bits,
    /// -32 times two sums, of the first two of each four of the 16 values and, in the high half, of the others.
    pub offsets: [i32; 16],
    /// The same of each 32 values.
    pub offsets32: [i32; 8],
    /// The sum of each 16 values, in the order of [`scrambled`].
    pub sums: [i16; 16],
    /// The sum of each 32 values.
    pub sums32: [i16; 8],
    pub d: f32,
}

/// 32 activations: value `j` is about `d * q[j]`.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub struct NarrowBlock {
    pub q: [i8; NARROW],
    pub d: f32,
    /// About `d` times the sum of the values.
    pub sum: f32,
    /// -128 times the sum of the values.
    pub offset: i32,
    /// With AVX2, -16 times two sums of 16 bits: of the first two of each four values and, in the high half, of the others.
    pub pairs: i32,
}

impl Default for WideBlock {
    fn default() -> WideBlock {
        WideBlock { q: [0; WIDE], offsets: [0; 16], offsets32: [0; 8], sums: [0; 16], sums32: [0; 8], d: 0.0 }
    }
}

/// A row of activations in the form that its weights need.
#[derive(Clone, Copy)]
pub enum Row<'a> {
    Wide(&'a [WideBlock]),
    Narrow(&'a [NarrowBlock]),
}

/// A row of activations as the row kernel of a type of weights takes it: in an order and in groups of its own, so that rows of
/// weights find them as registers want them. Made once for all rows of weights of that type.
pub struct Prepared {
    pub(super) ty: GgmlType,
    /// None where the kernel takes activations as they are.
    pub(super) groups: Vec<Unit>,
}

impl Default for Prepared {
    fn default() -> Prepared {
        Prepared { ty: GgmlType::Q4_K, groups: Vec::new() }
    }
}

impl Prepared {
    pub fn ty(&self) -> GgmlType {
        self.ty
    }
}

/// What groups consist of: a vector's bytes, aligned.
pub(super) type Unit = Lane16<u32>;

/// Rows of activations that meet a panel: row `i` is in `blocks` from number `places[i] * stride + first` on.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub blocks: Row<'a>,
    pub stride: usize,
    pub first: usize,
    pub places: &'a [usize],
}

/// Where group `g` of 16 stands in arrays of group scales, mins and sums: even groups first, so that the halves of a
/// 256-bit vector of 32 values find their scales in their own halves.
pub fn scrambled(g: usize) -> usize {
    g / 2 + 8 * (g % 2)
}

#[inline(always)]
fn largest(x: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([0f32; 16], [0f32; 16]);
    for x in x.chunks_exact(16) {
        for (i, x) in x.iter().enumerate() {
            low[i] = low[i].min(*x);
            high[i] = high[i].max(*x);
        }
    }
    // Halves first: one after the other they would wait for each other.
    let mut half = 8;
    while half > 0 {
        for i in 0..half {
            (low[i], high[i]) = (low[i].min(low[i + half]), high[i].max(high[i + half]));
        }
        half /= 2;
    }
    (low[0], high[0])
}

/// To the nearest integer, ties to even. The caller has scaled `x` to -127..=127.
#[inline(always)]
fn round(x: f32) -> i8 {
    // Adding and taking off 1.5 * 2^23 rounds, and leaves the integer in the low bits.
    (x + 12_582_912.0).to_bits() as i8
}

/// As ggml's quantize_row_q8_K: the value of largest magnitude becomes -127.
#[inline(always)]
pub fn wide(x: &[f32], out: &mut [WideBlock]) {
    for (x, out) in x.chunks_exact(WIDE).zip(out) {
        let (low, high) = largest(x);
        let extreme = if high >= -low { high } else { low };
        if extreme == 0.0 || !extreme.is_finite() {
            // Without a finite scale a row has no meaning; it must not pass for one that has.
            *out = WideBlock { d: if extreme == 0.0 { 0.0 } else { f32::NAN }, ..WideBlock::default() };
            continue;
        }
        let inverse = -127.0 / extreme;
        out.d = 1.0 / inverse;
        for (q, x) in out.q.iter_mut().zip(x) {
            *q = round(x * inverse);
        }
        for (g, q) in out.q.chunks_exact(16).enumerate() {
            let sum: i32 = q.iter().map(|q| i32::from(*q)).sum();
            out.sums[scrambled(g)] = sum as i16;
            out.offsets[g] = -128 * sum;
        }
        for g in 0..8 {
            out.sums32[g] = out.sums[g] + out.sums[g + 8];
            out.offsets32[g] = out.offsets[2 * g] + out.offsets[2 * g + 1];
        }
    }
}

/// To the precision in which ggml keeps these numbers; beyond f16's range they stay as they are.
#[inline(always)]
pub fn to_f16_and_back(x: f32) -> f32 {
    let narrow = f16::from_f32(x);
    if narrow.is_finite() { narrow.to_f32() } else { x }
}

/// As ggml's quantize_row_q8_0 and quantize_row_q8_1.
#[inline(always)]
pub fn narrow(x: &[f32], out: &mut [NarrowBlock]) {
    for (x, out) in x.chunks_exact(NARROW).zip(out) {
        let (low, high) = largest(x);
        let extreme = high.max(-low);
        if extreme == 0.0 || !extreme.is_finite() {
            *out = NarrowBlock { d: if extreme == 0.0 { 0.0 } else { f32::NAN }, ..NarrowBlock::default() };
            continue;
        }
        let inverse = 127.0 / extreme;
        let d = extreme / 127.0;
        out.d = to_f16_and_back(d);
        let mut sum = 0;
        for (q, x) in out.q.iter_mut().zip(x) {
            *q = round(x * inverse);
            sum += i32::from(*q);
        }
        out.sum = to_f16_and_back(d * sum as f32);
        out.offset = -128 * sum;
    }
}
