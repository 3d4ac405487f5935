//! Blocks of wide weights in four 512-bit registers of 64 neighbouring values, for AVX-512 VNNI.

use super::super::activations::WideBlock;
use super::decode::{SuperScales, scales_iq4, scales_mins, scales_q3, scramble};
use super::rows::halves;
use quant::blocks::*;
use quant::unpack::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, SIGNS};
use std::arch::x86_64::*;

/// Scales of the groups, and mins of types that have them.
pub enum Scales {
    /// 8 groups of 32, as i16.
    Of32(__m128i, __m128i),
    /// 16 groups of 16, as i8.
    Of16(__m128i, __m128i),
}

/// A wide block that can be taken into 512-bit registers. Value `j` is `(q[j] - OFFSET) * d * scale - dmin * min`, less than
/// 0 where its sign bit is set.
pub trait DecodeWide512: SuperScales {
    /// What `q` are too large by.
    const OFFSET: i32 = 0;
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

    /// Sums of the products, and of mins with sums of activations.
    ///
    /// # Safety
    /// AVX2, AVX-512 F, BW, VL, VNNI.
    #[inline(always)]
    unsafe fn products(&self, a: &WideBlock, spread: &[__m512i; 4]) -> (__m512i, __m128i) {
        // SAFETY: the caller has the instructions; loads are of whole arrays, or inside them.
        unsafe {
            let (q, signs) = self.quants();
            let scales = self.scales();
            let (lanes, sums) = match scales {
                Scales::Of32(scales, _) => {
                    let a = _mm_loadu_si128(a.sums32.as_ptr().cast());
                    (_mm512_broadcast_i32x4(scales), _mm256_zextsi128_si256(_mm_madd_epi16(scales, a)))
                }
                Scales::Of16(scales, _) => {
                    let a = _mm256_loadu_si256(a.sums.as_ptr().cast());
                    (transposed(scales), _mm256_madd_epi16(_mm256_cvtepi8_epi16(scramble(scales)), a))
                }
            };
            let mut products = match Self::OFFSET {
                0 => _mm512_setzero_si512(),
                offset => _mm512_zextsi256_si512(_mm256_mullo_epi32(sums, _mm256_set1_epi32(-offset))),
            };
            for c in 0..4 {
                let mut bytes = _mm512_loadu_si512(a.q.as_ptr().add(64 * c).cast());
                if Self::SIGNS {
                    bytes = _mm512_mask_sub_epi8(bytes, signs[c], _mm512_setzero_si512(), bytes);
                }
                // No pair exceeds 2 * 128 * 127.
                let pairs = _mm512_maddubs_epi16(q[c], bytes);
                products = _mm512_dpwssd_epi32(products, pairs, _mm512_shuffle_epi8(lanes, spread[c]));
            }
            let offsets = match scales {
                Scales::Of32(_, mins) => _mm_madd_epi16(mins, _mm_loadu_si128(a.sums32.as_ptr().cast())),
                Scales::Of16(_, mins) => {
                    let mins = _mm256_cvtepi8_epi16(scramble(mins));
                    halves(_mm256_madd_epi16(mins, _mm256_loadu_si256(a.sums.as_ptr().cast())))
                }
            };
            (products, offsets)
        }
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
pub fn spread(group: usize) -> &'static Shuffles {
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

/// 32 bytes in both halves.
///
/// # Safety
/// AVX-512 F; 32 bytes from `start` on are inside `bytes`.
#[inline(always)]
unsafe fn both(bytes: &[u8], start: usize) -> __m512i {
    debug_assert!(start + 32 <= bytes.len());
    // SAFETY: the caller's.
    unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes.as_ptr().add(start).cast())) }
}

/// One 16-bit number for the lower half and one for the upper.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn two(low: i16, high: i16) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_inserti64x4::<1>(_mm512_set1_epi16(low), _mm256_set1_epi16(high)) }
}

/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn mask(x: __m512i, bits: i8) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_and_si512(x, _mm512_set1_epi8(bits)) }
}

/// Bits of `field` from `x`, the other bits from `y`, of which those are 0.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn with_field(x: __m512i, field: i8, y: __m512i) -> __m512i {
    // SAFETY: the caller's. (x & field) | y
    unsafe { _mm512_ternarylogic_epi64::<0xea>(_mm512_set1_epi8(field), x, y) }
}

/// Nibbles of 128 bytes: 32 bytes for two groups of 32, the first in the low nibbles.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn four_bits(qs: &[u8; 128]) -> [__m512i; 4] {
    // SAFETY: the caller's; loads are inside the array.
    unsafe {
        let mut q = [_mm512_setzero_si512(); 4];
        for (c, q) in q.iter_mut().enumerate() {
            *q = mask(_mm512_srlv_epi16(both(qs, 32 * c), two(0, 4)), 15);
        }
        q
    }
}

/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn two_bits(qs: &[u8; 64]) -> [__m512i; 4] {
    // SAFETY: the caller's; loads are inside the array.
    unsafe {
        let mut q = [_mm512_setzero_si512(); 4];
        for (c, q) in q.iter_mut().enumerate() {
            let shift = if c % 2 == 0 { two(0, 2) } else { two(4, 6) };
            *q = mask(_mm512_srlv_epi16(both(qs, 32 * (c / 2)), shift), 3);
        }
        q
    }
}

/// `q` with bit `g` of byte `j` as bit `to` of value `32 g + j`.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn with_bit(mut q: [__m512i; 4], bytes: &[u8; 32], to: i32) -> [__m512i; 4] {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe {
        let bytes = both(bytes, 0);
        for (c, q) in q.iter_mut().enumerate() {
            // A bit that goes from one place of a byte to another stays in it when 32-bit lanes are rotated.
            let by = to - 2 * c as i32;
            let by = _mm512_inserti64x4::<1>(_mm512_set1_epi32(by & 31), _mm256_set1_epi32((by - 1) & 31));
            *q = with_field(_mm512_rolv_epi32(bytes, by), 1 << to, *q);
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

/// Points of a lattice of four bytes.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn points4(point: impl Fn(usize) -> u32) -> [__m512i; 4] {
    // SAFETY: passed on.
    unsafe { points8(|i| u64::from(point(2 * i)) | u64::from(point(2 * i + 1)) << 32) }
}

/// Eight bytes for each vector. (Written as loops: `array::from_fn` is not always inlined, and would cost a call a byte.)
#[inline(always)]
fn bytes(byte: impl Fn(usize) -> u8) -> [u64; 4] {
    let mut words = [0; 4];
    for (c, word) in words.iter_mut().enumerate() {
        *word = word_of(|i| byte(8 * c + i));
    }
    words
}

/// Eight bytes, the first lowest.
#[inline(always)]
fn word_of(byte: impl Fn(usize) -> u8) -> u64 {
    let mut word = 0;
    for i in 0..8 {
        word |= u64::from(byte(i)) << (8 * i);
    }
    word
}

/// Sign bits of 64 values from the eight 7-bit indices of each vector.
#[inline(always)]
fn seven_bit_signs(index: impl Fn(usize) -> usize) -> [u64; 4] {
    bytes(|i| SIGNS[index(i) & 127])
}

/// Sixteen scales `2 s + 1` of eight bytes, the low nibble first.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn odd_nibbles(scales: u64) -> __m128i {
    // SAFETY: the caller's.
    unsafe {
        let low = _mm_cvtsi64_si128((scales & 0x0f0f_0f0f_0f0f_0f0f) as i64);
        let high = _mm_cvtsi64_si128((scales >> 4 & 0x0f0f_0f0f_0f0f_0f0f) as i64);
        let all = _mm_unpacklo_epi8(low, high);
        _mm_or_si128(_mm_add_epi8(all, all), _mm_set1_epi8(1))
    }
}

/// Scales of groups of 32 without mins.
///
/// # Safety
/// SSE4.1.
#[inline(always)]
unsafe fn of32(scales: u64) -> Scales {
    // SAFETY: the caller's.
    unsafe {
        let scales = _mm_cvtepi8_epi16(_mm_cvtsi64_si128(scales as i64));
        Scales::Of32(scales, scales)
    }
}

macro_rules! decode {
    ($block:ident, offset $offset:literal, signs $signs:literal, $self:ident => $quants:expr, $scales:expr) => {
        impl DecodeWide512 for $block {
            const OFFSET: i32 = $offset;
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
    };
}

decode!(BlockQ4_K, offset 0, signs false, self => (four_bits(&self.qs), [0; 4]), {
    let (scales, mins) = scales_mins(&self.scales);
    Scales::Of32(scales, mins)
});
decode!(BlockQ5_K, offset 0, signs false, self => (with_bit(four_bits(&self.qs), &self.qh, 4), [0; 4]), {
    let (scales, mins) = scales_mins(&self.scales);
    Scales::Of32(scales, mins)
});
decode!(BlockQ6_K, offset 32, signs false, self => {
    let mut q = [_mm512_setzero_si512(); 4];
    for half in 0..2 {
        let low = _mm512_loadu_si512(self.ql.as_ptr().add(64 * half).cast());
        let high = both(&self.qh, 32 * half);
        let first = mask(_mm512_sllv_epi16(high, two(4, 2)), 48);
        let second = mask(_mm512_srlv_epi16(high, two(0, 2)), 48);
        q[2 * half] = with_field(low, 15, first);
        q[2 * half + 1] = with_field(_mm512_srli_epi16::<4>(low), 15, second);
    }
    (q, [0; 4])
}, {
    let scales = _mm_loadu_si128(self.scales.as_ptr().cast());
    Scales::Of16(scales, scales)
});
decode!(BlockQ2_K, offset 0, signs false, self => (two_bits(&self.qs), [0; 4]), {
    let (packed, low) = (_mm_loadu_si128(self.scales.as_ptr().cast()), _mm_set1_epi8(15));
    Scales::Of16(_mm_and_si128(packed, low), _mm_and_si128(_mm_srli_epi16::<4>(packed), low))
});
decode!(BlockQ3_K, offset 4, signs false, self => (with_bit(two_bits(&self.qs), &self.hmask, 2), [0; 4]), {
    let scales = scales_q3(&self.scales);
    Scales::Of16(scales, scales)
});
decode!(BlockIQ4_XS, offset 0, signs true, self => {
    // Bit 3 of a nibble is set where its value is more than 0.
    const SIZES: [i8; 16] = [127, 104, 83, 65, 49, 35, 22, 10, 1, 13, 25, 38, 53, 69, 89, 113];
    let sizes = _mm512_broadcast_i32x4(_mm_loadu_si128(SIZES.as_ptr().cast()));
    let twice = _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3);
    let (mut q, mut signs) = ([_mm512_setzero_si512(); 4], [0; 4]);
    for c in 0..4 {
        let bytes = _mm512_castsi256_si512(_mm256_loadu_si256(self.qs.as_ptr().add(32 * c).cast()));
        let bytes = _mm512_permutexvar_epi64(twice, bytes);
        let nibbles = mask(_mm512_srlv_epi64(bytes, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)), 15);
        q[c] = _mm512_shuffle_epi8(sizes, nibbles);
        signs[c] = _mm512_testn_epi8_mask(nibbles, _mm512_set1_epi8(8));
    }
    (q, signs)
}, {
    let scales = scales_iq4(self);
    Scales::Of32(scales, scales)
});
decode!(BlockTQ2_0, offset 1, signs false, self => (two_bits(&self.qs), [0; 4]), {
    let ones = _mm_set1_epi16(1);
    Scales::Of32(ones, ones)
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
    Scales::Of32(ones, ones)
});
decode!(BlockIQ2_XXS, offset 0, signs true, self => {
    let tail = |g: usize| u32::from(self.qs[4 * g + 2]) | u32::from(self.qs[4 * g + 3]) << 16;
    let index = |i: usize| usize::from(self.qs[i / 4 * 4 + i % 4 / 2] >> (8 * (i % 2)) & 255);
    (points8(|i| IQ2_XXS_GRID[index(i)]), seven_bit_signs(|i| (tail(i / 4) >> (7 * (i % 4))) as usize))
}, of32(word_of(|g| (self.qs[4 * g + 3] >> 11 & 30 | 1) as u8)));
decode!(BlockIQ2_XS, offset 0, signs true, self => {
    let signs = seven_bit_signs(|i| usize::from(self.qs[i] >> 9));
    (points8(|i| IQ2_XS_GRID[usize::from(self.qs[i] & 511)]), signs)
}, {
    let scales = odd_nibbles(u64::from_le_bytes(self.scales));
    Scales::Of16(scales, scales)
});
decode!(BlockIQ2_S, offset 0, signs true, self => {
    let high = |i: usize| usize::from(self.qh[i / 4] >> (2 * (i % 4)) & 3) << 8;
    let signs = bytes(|i| self.qs[32 + i]);
    (points8(|i| IQ2_S_GRID[usize::from(self.qs[i]) | high(i)]), signs)
}, {
    let scales = odd_nibbles(u64::from_le_bytes(self.scales));
    Scales::Of16(scales, scales)
});
decode!(BlockIQ3_XXS, offset 0, signs true, self => {
    let tail = |g: usize| {
        let at = 64 + 4 * g;
        u32::from_le_bytes([self.qs[at], self.qs[at + 1], self.qs[at + 2], self.qs[at + 3]])
    };
    let signs = seven_bit_signs(|i| (tail(i / 4) >> (7 * (i % 4))) as usize);
    (points4(|i| IQ3_XXS_GRID[usize::from(self.qs[i])]), signs)
}, of32(word_of(|g| self.qs[64 + 4 * g + 3] >> 3 & 30 | 1)));
decode!(BlockIQ3_S, offset 0, signs true, self => {
    let high = |i: usize| usize::from(self.qh[i / 8] >> (i % 8) & 1) << 8;
    let signs = bytes(|i| self.signs[i]);
    (points4(|i| IQ3_S_GRID[usize::from(self.qs[i]) | high(i)]), signs)
}, of32(word_of(|g| (self.scales[g / 2] >> (4 * (g % 2)) & 15) << 1 | 1)));

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
    Scales::Of16(scales, scales)
});
