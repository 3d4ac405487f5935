//! The K types and IQ4_XS for AVX-512 VNNI.

use super::wide512::{DecodeWide512, FOUR, Four};
use quant::blocks::*;
use quant::unpack::IQ4_VALUES;
use std::arch::x86_64::*;

/// Shuffles of 64 bytes.
type Shuffles<const N: usize> = [[u8; 64]; N];

/// A shuffle that spreads byte `at(c, l)` over the 16-bit lanes of quarter `l` of vector `c`.
macro_rules! spread_bytes {
    ($n:literal, $c:ident $l:ident => $at:expr) => {{
        let mut out = [[0x80u8; 64]; $n];
        let mut i = 0;
        while i < $n * 32 {
            let ($c, $l) = (i / 32, i % 32 / 8);
            out[$c][i % 32 * 2] = $at as u8;
            i += 1;
        }
        out
    }};
}

/// The same of 16-bit lanes.
macro_rules! spread_words {
    ($n:literal, $c:ident $l:ident => $at:expr) => {{
        let mut out = [[0u8; 64]; $n];
        let mut i = 0;
        while i < $n * 32 {
            let ($c, $l) = (i / 32, i % 32 / 8);
            out[$c][i % 32 * 2] = 2 * $at as u8;
            out[$c][i % 32 * 2 + 1] = 2 * $at as u8 + 1;
            i += 1;
        }
        out
    }};
}

/// Registers have groups of 32 `c` and `c + 2` of four.
static OF_NIBBLES: Shuffles<4> = spread_bytes!(4, c l => (c / 2 * 4 + c % 2 + l / 2 * 2));
/// Registers have groups of 16 `2 c`, `2 c + 1`, `2 c + 8`, `2 c + 9`.
static OF_PAIRS: Shuffles<4> = spread_bytes!(4, c l => (2 * c + l % 2 + l / 2 * 8));
static WORDS_OF_PAIRS: Shuffles<4> = spread_words!(4, c l => (2 * c + l % 2));
static WORDS_IN_ORDER: Shuffles<2> = spread_words!(2, c l => (4 * c + l));

/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn loaded<const N: usize>(shuffles: &'static Shuffles<N>) -> [__m512i; N] {
    // SAFETY: the caller's; loads are of whole arrays.
    unsafe {
        let mut out = [_mm512_setzero_si512(); N];
        // The compiler would make two shuffles of some of these if it knew them.
        for (out, bytes) in out.iter_mut().zip(std::hint::black_box(shuffles)) {
            *out = _mm512_loadu_si512(bytes.as_ptr().cast());
        }
        out
    }
}

/// 16 bytes of each of four blocks.
///
/// # Safety
/// AVX-512 F; all can be read.
#[inline(always)]
unsafe fn of_four(bytes: [*const u8; FOUR]) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let [a, b, c, d] = bytes.map(|bytes| bytes.cast::<__m128i>());
        let x = _mm512_castsi128_si512(_mm_loadu_si128(a));
        let x = _mm512_inserti32x4::<1>(x, _mm_loadu_si128(b));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(x, _mm_loadu_si128(c)), _mm_loadu_si128(d))
    }
}

/// Each quarter of `x` in the first two quarters, and of `y` in the last two.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn each_quarter(x: __m512i, y: __m512i) -> [__m512i; FOUR] {
    // SAFETY: the caller's.
    unsafe {
        [
            _mm512_shuffle_i32x4::<0x00>(x, y),
            _mm512_shuffle_i32x4::<0x55>(x, y),
            _mm512_shuffle_i32x4::<0xaa>(x, y),
            _mm512_shuffle_i32x4::<0xff>(x, y),
        ]
    }
}

/// # Safety
/// AVX-512 F.
#[inline(always)]
pub unsafe fn mask(x: __m512i, bits: i8) -> __m512i {
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

/// 32 bytes in both halves.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub unsafe fn both(bytes: &[u8; 32]) -> __m512i {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes.as_ptr().cast())) }
}

/// One number for the 32-bit lanes of the lower half and one for those of the upper.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub unsafe fn two(low: i32, high: i32) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_inserti64x4::<1>(_mm512_set1_epi32(low), _mm256_set1_epi32(high)) }
}

/// `sum + Σ q * a * scale`: `q` are at most 128, so that no pair exceeds 2 * 128 * 127.
///
/// # Safety
/// AVX-512 F, BW, VNNI.
#[inline(always)]
unsafe fn add(sum: __m512i, q: __m512i, a: &[[i8; 16]; 4], scales: __m512i) -> __m512i {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe { _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(q, _mm512_loadu_si512(a.as_ptr().cast())), scales) }
}

/// Scales, and their mins, of Q4_K and Q5_K: in quarter `i` eight bytes of each of block `i`.
///
/// # Safety
/// AVX-512 F; 16 bytes from each address on can be read: two f16 numbers, and the packed scales.
#[inline(always)]
unsafe fn six_bits(starts: [*const u8; FOUR]) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let words = of_four(starts);
        // Of words 0 to 3 the first holds the scales of the block.
        let by = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 0, 4));
        let low = _mm512_srlv_epi32(_mm512_shuffle_epi32::<0xed>(words), by);
        let low = _mm512_and_si512(low, _mm512_set1_epi64(0x0f0f_0f0f_3f3f_3f3f));
        let high = _mm512_srli_epi32::<2>(_mm512_shuffle_epi32::<0xa5>(words));
        // low | high & bits
        _mm512_ternarylogic_epi64::<0xf8>(low, high, _mm512_set1_epi64(0x3030_3030_0000_0000))
    }
}

/// Eight mins of each block times sums of activations.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn times_sums32(mins: __m512i, a: &Four) -> __m512i {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe { _mm512_madd_epi16(mins, _mm512_loadu_si512(a.sums32.as_ptr().cast())) }
}

/// Sixteen, as 16-bit lanes.
///
/// # Safety
/// AVX-512 F, BW and VNNI.
#[inline(always)]
unsafe fn times_sums(low: __m512i, high: __m512i, a: &Four) -> __m512i {
    // SAFETY: the caller's; loads are of whole arrays.
    unsafe {
        let sums = _mm512_madd_epi16(low, _mm512_loadu_si512(a.sums[0].as_ptr().cast()));
        _mm512_dpwssd_epi32(sums, high, _mm512_loadu_si512(a.sums[1].as_ptr().cast()))
    }
}

/// Bytes with a sign as 16-bit lanes: the first eight of each quarter, and the last eight.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn signed(bytes: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller's.
    unsafe {
        let (low, high) = (_mm512_unpacklo_epi8(bytes, bytes), _mm512_unpackhi_epi8(bytes, bytes));
        [_mm512_srai_epi16::<8>(low), _mm512_srai_epi16::<8>(high)]
    }
}

/// Nibbles of 64 bytes at `half`: low ones, and high ones.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn nibbles(qs: &[u8; 128], half: usize) -> [__m512i; 2] {
    // SAFETY: the caller's; the load is inside the array.
    unsafe {
        let bytes = _mm512_loadu_si512(qs.as_ptr().add(64 * half).cast());
        [mask(bytes, 15), mask(_mm512_srli_epi16::<4>(bytes), 15)]
    }
}

/// Pairs of bits of 64 bytes, the lowest ones first.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn pairs(qs: &[u8; 64]) -> [__m512i; 4] {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe {
        let bytes = _mm512_loadu_si512(qs.as_ptr().cast());
        let rest = [_mm512_srli_epi16::<2>(bytes), _mm512_srli_epi16::<4>(bytes), _mm512_srli_epi16::<6>(bytes)];
        [mask(bytes, 3), mask(rest[0], 3), mask(rest[1], 3), mask(rest[2], 3)]
    }
}

/// Groups of 32 of registers that hold nibbles of K types.
const NIBBLES: [u8; 16] = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
/// Groups of registers that hold pairs of bits.
const PAIRS: [u8; 16] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];

macro_rules! nibbles_512 {
    ($block:ident, $self:ident $q:ident $c:ident => $q_with_more:expr) => {
        impl DecodeWide512 for $block {
            const ORDER: [u8; 16] = NIBBLES;
            type Tables = [__m512i; 4];
            #[inline(always)]
            unsafe fn tables() -> [__m512i; 4] {
                // SAFETY: the caller's.
                unsafe { loaded(&OF_NIBBLES) }
            }
            #[inline(always)]
            unsafe fn four(blocks: &[Self; FOUR], a: &Four, spread: &[__m512i; 4]) -> ([__m512i; FOUR], __m512i) {
                // SAFETY: the caller's; loads are inside blocks.
                unsafe {
                    let starts = blocks.each_ref().map(|block| std::ptr::from_ref(block).cast());
                    let scales = six_bits(starts);
                    let lanes = each_quarter(scales, scales);
                    let mut products = [_mm512_setzero_si512(); FOUR];
                    for i in 0..FOUR {
                        let $self = &blocks[i];
                        for half in 0..2 {
                            let quants = nibbles(&$self.qs, half);
                            for high in 0..2 {
                                let ($c, $q) = (2 * half + high, quants[high]);
                                let q = $q_with_more;
                                let a = &a.q[i].as_chunks::<4>().0[$c];
                                products[i] = add(products[i], q, a, _mm512_shuffle_epi8(lanes[i], spread[$c]));
                            }
                        }
                    }
                    let mins = _mm512_unpackhi_epi8(scales, _mm512_setzero_si512());
                    (products, times_sums32(mins, a))
                }
            }
        }
    };
}
nibbles_512!(BlockQ4_K, block q c => q);
nibbles_512!(BlockQ5_K, block q c => {
    // Bits of groups `g` and `g + 2`, to the fifth place of bytes: they stay in theirs when 32-bit lanes are rotated.
    let g = (c / 2 * 4 + c % 2) as i32;
    with_field(_mm512_rolv_epi32(both(&block.qh), two((4 - g) & 31, (2 - g) & 31)), 16, q)
});

impl DecodeWide512 for BlockQ6_K {
    const OFFSET: i32 = 32;
    type Tables = [__m512i; 2];
    #[inline(always)]
    unsafe fn tables() -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe { loaded(&WORDS_IN_ORDER) }
    }
    #[inline(always)]
    unsafe fn four(blocks: &[Self; FOUR], a: &Four, spread: &[__m512i; 2]) -> ([__m512i; FOUR], __m512i) {
        // SAFETY: the caller's; loads are inside blocks.
        unsafe {
            let scales = signed(of_four(blocks.each_ref().map(|block| block.scales.as_ptr().cast())));
            let lanes = [each_quarter(scales[0], scales[0]), each_quarter(scales[1], scales[1])];
            let mut products = [_mm512_setzero_si512(); FOUR];
            for i in 0..FOUR {
                let block = &blocks[i];
                for half in 0..2 {
                    let low = _mm512_loadu_si512(block.ql.as_ptr().add(64 * half).cast());
                    let high = both(&block.qh.as_chunks::<32>().0[half]);
                    // Of four pairs of bits two go up and two down, by whole bytes.
                    let first = mask(_mm512_rolv_epi32(high, two(4, 2)), 48);
                    let second = mask(_mm512_rolv_epi32(high, two(0, 30)), 48);
                    let q = [with_field(low, 15, first), with_field(_mm512_srli_epi16::<4>(low), 15, second)];
                    for c in 0..2 {
                        let a = &a.q[i].as_chunks::<4>().0[2 * half + c];
                        products[i] = add(products[i], q[c], a, _mm512_shuffle_epi8(lanes[half][i], spread[c]));
                    }
                }
            }
            (products, times_sums(scales[0], scales[1], a))
        }
    }
}

impl DecodeWide512 for BlockQ2_K {
    const ORDER: [u8; 16] = PAIRS;
    type Tables = [__m512i; 4];
    #[inline(always)]
    unsafe fn tables() -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe { loaded(&OF_PAIRS) }
    }
    #[inline(always)]
    unsafe fn four(blocks: &[Self; FOUR], a: &Four, spread: &[__m512i; 4]) -> ([__m512i; FOUR], __m512i) {
        // SAFETY: the caller's; loads are inside blocks.
        unsafe {
            let packed = of_four(blocks.each_ref().map(|block| block.scales.as_ptr()));
            let (scales, mins) = (mask(packed, 15), mask(_mm512_srli_epi16::<4>(packed), 15));
            let lanes = each_quarter(scales, scales);
            let mut products = [_mm512_setzero_si512(); FOUR];
            for i in 0..FOUR {
                let quants = pairs(&blocks[i].qs);
                for c in 0..4 {
                    let a = &a.q[i].as_chunks::<4>().0[c];
                    products[i] = add(products[i], quants[c], a, _mm512_shuffle_epi8(lanes[i], spread[c]));
                }
            }
            let zero = _mm512_setzero_si512();
            (products, times_sums(_mm512_unpacklo_epi8(mins, zero), _mm512_unpackhi_epi8(mins, zero), a))
        }
    }
}

/// The 16 scales of Q3_K of each block, as `quant::unpack::unpack_scales_q3` unpacks them.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn scales_q3(blocks: &[BlockQ3_K; FOUR]) -> __m512i {
    // SAFETY: the caller's; the last 16 bytes of a block are two of `qs`, the scales and `d`.
    unsafe {
        let ends = of_four(blocks.each_ref().map(|block| std::ptr::from_ref(block).cast::<u8>().add(94)));
        let low = _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9);
        let high = _mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13);
        let low = _mm512_shuffle_epi8(ends, _mm512_broadcast_i32x4(low));
        let high = _mm512_shuffle_epi8(ends, _mm512_broadcast_i32x4(high));
        let low = mask(_mm512_srlv_epi64(low, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4)), 15);
        let up = _mm512_broadcast_i32x4(_mm_setr_epi32(4, 2, 0, 30));
        _mm512_sub_epi8(with_field(_mm512_rolv_epi32(high, up), 48, low), _mm512_set1_epi8(32))
    }
}

impl DecodeWide512 for BlockQ3_K {
    const ORDER: [u8; 16] = PAIRS;
    const OFFSET: i32 = 4;
    type Tables = [__m512i; 4];
    #[inline(always)]
    unsafe fn tables() -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe { loaded(&WORDS_OF_PAIRS) }
    }
    #[inline(always)]
    unsafe fn four(blocks: &[Self; FOUR], a: &Four, spread: &[__m512i; 4]) -> ([__m512i; FOUR], __m512i) {
        // SAFETY: the caller's; loads are inside blocks.
        unsafe {
            let scales = signed(scales_q3(blocks));
            let lanes = each_quarter(scales[0], scales[1]);
            let mut products = [_mm512_setzero_si512(); FOUR];
            for i in 0..FOUR {
                let quants = pairs(&blocks[i].qs);
                let high = both(&blocks[i].hmask);
                for c in 0..4 {
                    // Bits `c` and `c + 4`, to the third place of bytes.
                    let high = _mm512_rolv_epi32(high, two((2 - c as i32) & 31, (-2 - c as i32) & 31));
                    let q = with_field(high, 4, quants[c]);
                    let a = &a.q[i].as_chunks::<4>().0[c];
                    products[i] = add(products[i], q, a, _mm512_shuffle_epi8(lanes[i], spread[c]));
                }
            }
            (products, times_sums(scales[0], scales[1], a))
        }
    }
}

impl DecodeWide512 for BlockIQ4_XS {
    /// Registers have 16 values of each of four groups of 32: their scales meet sums of 32 values.
    const ORDER: [u8; 16] = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];
    const OFFSET: i32 = 128;
    type Tables = ();
    #[inline(always)]
    unsafe fn tables() {}
    #[inline(always)]
    unsafe fn four(blocks: &[Self; FOUR], a: &Four, _tables: &()) -> ([__m512i; FOUR], __m512i) {
        // SAFETY: the caller's; loads are inside blocks.
        unsafe {
            let values = _mm_xor_si128(_mm_loadu_si128(IQ4_VALUES.as_ptr().cast()), _mm_set1_epi8(-128));
            let values = _mm512_broadcast_i32x4(values);
            let scales = scales_iq4(blocks);
            let (low, high) = (_mm512_unpacklo_epi16(scales, scales), _mm512_unpackhi_epi16(scales, scales));
            let wide = [_mm512_srai_epi32::<16>(low), _mm512_srai_epi32::<16>(high)];
            let mut products = [_mm512_setzero_si512(); FOUR];
            for i in 0..FOUR {
                let own = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                let own = _mm512_add_epi32(own, _mm512_set1_epi32(4 * i as i32));
                let mut halves = [_mm512_setzero_si512(); 2];
                for (half, sum) in halves.iter_mut().enumerate() {
                    let nibbles = nibbles(&blocks[i].qs, half);
                    for high in 0..2 {
                        let a = _mm512_loadu_si512(a.q[i].as_chunks::<4>().0[2 * half + high].as_ptr().cast());
                        *sum = _mm512_dpbusd_epi32(*sum, _mm512_shuffle_epi8(values, nibbles[high]), a);
                    }
                    *sum = _mm512_mullo_epi32(*sum, _mm512_permutexvar_epi32(own, wide[half]));
                }
                products[i] = _mm512_add_epi32(halves[0], halves[1]);
            }
            (products, times_sums32(scales, a))
        }
    }
}

/// The eight scales of each block, as 16-bit lanes.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn scales_iq4(blocks: &[BlockIQ4_XS; FOUR]) -> __m512i {
    // SAFETY: the caller's; a block begins with `d`, `scales_h` and `scales_l`.
    unsafe {
        let starts = of_four(blocks.each_ref().map(|block| std::ptr::from_ref(block).cast()));
        let low = _mm_setr_epi8(4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
        let low = _mm512_shuffle_epi8(starts, _mm512_broadcast_i32x4(low));
        let low = _mm512_srlv_epi16(low, _mm512_set1_epi32(0x0004_0000));
        let high = _mm512_shuffle_epi8(starts, _mm512_set1_epi16(0x0302));
        let by = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14));
        let high = _mm512_slli_epi16::<4>(_mm512_and_si512(_mm512_srlv_epi16(high, by), _mm512_set1_epi16(3)));
        let both = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi16(15)), high);
        _mm512_sub_epi16(both, _mm512_set1_epi16(32))
    }
}
