//! Types without K's arithmetic, block by block in four 512-bit registers of 64 neighbouring values, for AVX-512 VNNI: those of
//! lattices, whose points come from tables, and the ternary ones.

use super::k512::{both, mask, two};
use super::lattice::{Lattice, Scales, of32, word_of};
use super::wide512::{DecodeWide512, FOUR, Four};
use quant::blocks::*;
use quant::unpack::IQ1_GRID;
use std::arch::x86_64::*;

/// A block that can be taken into registers. Value `j` is `(q[j] - OFFSET) * d * scale`, less than 0 where its sign bit is set.
trait Decode {
    /// There are sign bits.
    const SIGNS: bool = false;
    /// Unsigned bytes of at most 128, and sign bits.
    ///
    /// # Safety
    /// AVX-512 F and BW.
    unsafe fn quants(&self) -> ([__m512i; 4], [u64; 4]);
    /// # Safety
    /// AVX2.
    unsafe fn scales(&self) -> Scales;
}

/// Lanes that together are the sum of the products, and lanes that are the sum of scales and sums of activations.
///
/// # Safety
/// AVX2, AVX-512 F, BW, VL, VNNI.
#[inline(always)]
unsafe fn products<B: Decode>(block: &B, a: &Four, i: usize, spread: &[__m512i; 4]) -> (__m512i, __m128i) {
    // SAFETY: the caller has the instructions; loads are of whole arrays.
    unsafe {
        let (q, signs) = block.quants();
        let (lanes, sums) = match block.scales() {
            Scales::Of32(scales) => {
                let a = _mm_loadu_si128(a.sums32[i].as_ptr().cast());
                (_mm512_broadcast_i32x4(scales), _mm_madd_epi16(scales, a))
            }
            Scales::Of16(scales) => {
                let low = _mm_loadu_si128(a.sums[0][i].as_ptr().cast());
                let high = _mm_loadu_si128(a.sums[1][i].as_ptr().cast());
                let sums = _mm_madd_epi16(_mm_cvtepi8_epi16(scales), low);
                (transposed(scales), _mm_dpwssd_epi32(sums, _mm_cvtepi8_epi16(_mm_srli_si128::<8>(scales)), high))
            }
        };
        let mut products = _mm512_setzero_si512();
        for (c, a) in a.q[i].as_chunks::<4>().0.iter().enumerate() {
            let mut bytes = _mm512_loadu_si512(a.as_ptr().cast());
            if B::SIGNS {
                bytes = _mm512_mask_sub_epi8(bytes, signs[c], _mm512_setzero_si512(), bytes);
            }
            // No pair exceeds 2 * 128 * 127.
            let pairs = _mm512_maddubs_epi16(q[c], bytes);
            products = _mm512_dpwssd_epi32(products, pairs, _mm512_shuffle_epi8(lanes, spread[c]));
        }
        (products, sums)
    }
}

/// Shuffles of 16 lanes of 2 bytes for each 64 values.
type Shuffles = [[[u8; 2]; 32]; 4];

/// Spread scales 2 c and 2 c + 1 over halves.
static SPREAD32: Shuffles = shuffles(32);
/// Spread scale c of each quarter over that quarter.
static SPREAD16: Shuffles = shuffles(16);

const fn shuffles(group: usize) -> Shuffles {
    let mut out = [[[0; 2]; 32]; 4];
    let mut i = 0;
    while i < 128 {
        let (c, lane) = (i / 32, i % 32);
        let scale = if group == 32 { 2 * c + lane / 16 } else { c };
        out[c][lane] = [2 * scale as u8, 2 * scale as u8 + 1];
        i += 1;
    }
    out
}

/// The shuffles for groups of `group` values.
#[inline(always)]
fn spread(group: usize) -> &'static Shuffles {
    // The compiler would make two shuffles of some of these if it knew them.
    std::hint::black_box(if group == 32 { &SPREAD32 } else { &SPREAD16 })
}

/// From 16 bytes: in quarter `l`, 16-bit lane `c` is byte `4 c + l`.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn transposed(scales: __m128i) -> __m512i {
    // SAFETY: the caller's. Bytes go to the high halves, and down again with their signs.
    unsafe {
        let all = _mm512_broadcast_i32x4(scales);
        let first = _mm_setr_epi8(-1, 0, -1, 4, -1, 8, -1, 12, -1, -1, -1, -1, -1, -1, -1, -1);
        let quarters = _mm512_set_epi32(
            3 << 24 | 3 << 8,
            3 << 24 | 3 << 8,
            3 << 24 | 3 << 8,
            3 << 24 | 3 << 8,
            2 << 24 | 2 << 8,
            2 << 24 | 2 << 8,
            2 << 24 | 2 << 8,
            2 << 24 | 2 << 8,
            1 << 24 | 1 << 8,
            1 << 24 | 1 << 8,
            1 << 24 | 1 << 8,
            1 << 24 | 1 << 8,
            0,
            0,
            0,
            0,
        );
        let shuffle = _mm512_add_epi8(_mm512_broadcast_i32x4(first), quarters);
        // What is not used may be anything.
        _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(all, shuffle))
    }
}

/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn two_bits(qs: &[u8; 64]) -> [__m512i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let mut q = [_mm512_setzero_si512(); 4];
        for (c, q) in q.iter_mut().enumerate() {
            let shift = if c % 2 == 0 { two(0, 2) } else { two(4, 6) };
            *q = mask(_mm512_srlv_epi32(both(&qs.as_chunks::<32>().0[c / 2]), shift), 3);
        }
        q
    }
}

/// Points of a lattice of eight bytes.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn points8(at: impl Fn(usize) -> u64) -> [__m512i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let mut q = [_mm512_setzero_si512(); 4];
        for (c, q) in q.iter_mut().enumerate() {
            let mut points = [0i64; 8];
            for (i, point) in points.iter_mut().enumerate() {
                *point = at(8 * c + i) as i64;
            }
            let [a, b, c, d, e, f, g, h] = points;
            let low = _mm256_set_m128i(_mm_set_epi64x(d, c), _mm_set_epi64x(b, a));
            let high = _mm256_set_m128i(_mm_set_epi64x(h, g), _mm_set_epi64x(f, e));
            *q = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        }
        q
    }
}

macro_rules! decode {
    ($block:ident, offset $offset:literal, signs $signs:literal, $self:ident => $quants:expr, $scales:expr) => {
        impl Decode for $block {
            const SIGNS: bool = $signs;
            #[inline(always)]
            unsafe fn quants(&$self) -> ([__m512i; 4], [u64; 4]) {
                // SAFETY: the caller's; loads are inside arrays.
                unsafe { $quants }
            }
            #[inline(always)]
            unsafe fn scales(&$self) -> Scales {
                // SAFETY: the caller's; loads are inside arrays.
                unsafe { $scales }
            }
        }
        impl DecodeWide512 for $block {
            const OFFSET: i32 = $offset;
            type Tables = [__m512i; 4];
            #[inline(always)]
            unsafe fn tables() -> [__m512i; 4] {
                // SAFETY: the caller's; loads are of whole arrays.
                unsafe {
                    let mut tables = [_mm512_setzero_si512(); 4];
                    for (table, bytes) in tables.iter_mut().zip(spread(<$block as quant::unpack::Unpack>::GROUP)) {
                        *table = _mm512_loadu_si512(bytes.as_ptr().cast());
                    }
                    tables
                }
            }
            #[inline(always)]
            unsafe fn four(blocks: &[Self; FOUR], a: &Four, spread: &[__m512i; 4]) -> ([__m512i; FOUR], __m512i) {
                // SAFETY: the caller's.
                unsafe {
                    let (mut sums, mut quarters) = ([_mm512_setzero_si512(); FOUR], [_mm_setzero_si128(); FOUR]);
                    for i in 0..FOUR {
                        (sums[i], quarters[i]) = products(&blocks[i], a, i, spread);
                    }
                    let low = _mm256_set_m128i(quarters[1], quarters[0]);
                    let high = _mm256_set_m128i(quarters[3], quarters[2]);
                    (sums, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
                }
            }
        }
    };
}

decode!(BlockTQ2_0, offset 1, signs false, self => (two_bits(&self.qs), [0; 4]), {
    let ones = _mm_set1_epi16(1);
    Scales::Of32(ones)
});
decode!(BlockTQ1_0, offset 1, signs false, self => {
    // Digit n of a byte is the top of three times (byte * 3^n), modulo 256.
    let mut powers = [[0u8; 64]; 5];
    powers[0][..48].copy_from_slice(&self.qs);
    powers[0][48..52].copy_from_slice(&self.qh);
    let mut values = [0u8; 256];
    let mut digits = [[0u8; 64]; 5];
    let mut x = _mm512_loadu_si512(powers[0].as_ptr().cast());
    for digits in &mut digits {
        // A third of the range: the digit is how many thirds are reached.
        let one = _mm512_cmpge_epu8_mask(x, _mm512_set1_epi8(86));
        let two = _mm512_cmpge_epu8_mask(x, _mm512_set1_epi8(171u8 as i8));
        let digit = _mm512_mask_mov_epi8(_mm512_maskz_set1_epi8(one, 1), two, _mm512_set1_epi8(2));
        _mm512_storeu_si512(digits.as_mut_ptr().cast(), digit);
        x = _mm512_add_epi8(x, _mm512_add_epi8(x, x));
    }
    for (n, digits) in digits.iter().enumerate() {
        values[32 * n..][..32].copy_from_slice(&digits[..32]);
        values[160 + 16 * n..][..16].copy_from_slice(&digits[32..48]);
        if n < 4 {
            values[240 + 4 * n..][..4].copy_from_slice(&digits[48..52]);
        }
    }
    let mut q = [_mm512_setzero_si512(); 4];
    for (q, values) in q.iter_mut().zip(values.chunks_exact(64)) {
        *q = _mm512_loadu_si512(values.as_ptr().cast());
    }
    (q, [0; 4])
}, {
    let ones = _mm_set1_epi16(1);
    Scales::Of32(ones)
});
macro_rules! lattices {
    ($($block:ident),*) => {$(
        decode!($block, offset 0, signs true, self => {
            let points = Lattice::points(self);
            (points8(|i| points[i]), Lattice::signs(self))
        }, Lattice::scales(self));
    )*};
}
lattices!(BlockIQ2_XXS, BlockIQ2_XS, BlockIQ2_S, BlockIQ3_XXS, BlockIQ3_S);

/// `8 grid + delta + 9`, `delta` being 1 or -1: what the IQ1 types' eighths are, plus 9.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn eighths(index: impl Fn(usize) -> usize, negative: impl Fn(usize) -> bool) -> [__m512i; 4] {
    // SAFETY: the caller's. Bytes are -1, 0 and 1, of which shifted lanes keep what is theirs by the mask.
    unsafe {
        let mut points = points8(|i| IQ1_GRID[index(i) & 2047]);
        let deltas = points8(|i| 0x0101_0101_0101_0101 * if negative(i) { 8 } else { 10 });
        for (points, deltas) in points.iter_mut().zip(deltas) {
            *points = _mm512_add_epi8(mask(_mm512_slli_epi16::<3>(*points), -8), deltas);
        }
        points
    }
}
decode!(BlockIQ1_S, offset 9, signs false, self => {
    let index = |i: usize| usize::from(self.qs[i]) | usize::from(self.qh[i / 4] >> (3 * (i % 4)) & 7) << 8;
    (eighths(index, |i| self.qh[i / 4] >> 15 == 1), [0; 4])
}, of32(word_of(|g| (self.qh[g] >> 11 & 14 | 1) as u8)));
decode!(BlockIQ1_M, offset 9, signs false, self => {
    let high = |i: usize| usize::from(self.qh[i / 2] >> (4 * (i % 2)));
    (eighths(|i| usize::from(self.qs[i]) | (high(i) & 7) << 8, |i| high(i) >> 3 & 1 == 1), [0; 4])
}, {
    let word = |i: usize| u16::from_le_bytes([self.scales[2 * i], self.scales[2 * i + 1]]);
    let scale = |g: usize| (word(g / 4) >> (3 * (g % 4)) << 1 & 14 | 1) as u8;
    let scales = _mm_set_epi64x(word_of(|i| scale(8 + i)) as i64, word_of(scale) as i64);
    Scales::Of16(scales)
});
