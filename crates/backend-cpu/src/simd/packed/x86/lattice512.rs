//! Types without K's arithmetic, block by block in four 512-bit registers of 64 values, for AVX-512 VNNI: those of lattices
//! and the ternary ones.

use super::k512::{both, mask, two};
use super::lattice::{Scales, made_even, odd, odd_nibbles, scales_iq3, seven_bits, top_nibbles};
use super::points512::{EIGHTS, FOURS, in_order, look_up, of_eights, of_fours, widened};
use super::wide512::{DecodeWide512, FOUR, Four, IN_ORDER};
use quant::blocks::*;
use quant::unpack::codes;
use std::arch::x86_64::*;

/// A block that can be taken into registers. Value `j` is `(q[j] - OFFSET) * d * scale`, less than 0 where its sign bit is set.
trait Decode {
    /// There are sign bits.
    const SIGNS: bool = false;
    /// Unsigned bytes of at most 128, and sign bits.
    ///
    /// # Safety
    /// AVX-512 F, BW, VL.
    unsafe fn quants(&self) -> ([__m512i; 4], [u64; 4]);
    /// # Safety
    /// AVX2, AVX-512 BW, VL.
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
                (quartered(scales), _mm_dpwssd_epi32(sums, _mm_cvtepi8_epi16(_mm_srli_si128::<8>(scales)), high))
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

/// Spread scales of groups of 32, where groups of 16 are in an order.
static SPREAD_IN_ORDER: Shuffles = shuffles(Some(&IN_ORDER));
static SPREAD_EIGHTS: Shuffles = shuffles(Some(&EIGHTS));
static SPREAD_FOURS: Shuffles = shuffles(Some(&FOURS));
/// Spread lane `c` of each quarter over that quarter.
static SPREAD16: Shuffles = shuffles(None);

const fn shuffles(order: Option<&[u8; 16]>) -> Shuffles {
    let mut out = [[[0; 2]; 32]; 4];
    let mut i = 0;
    while i < 128 {
        let (c, lane) = (i / 32, i % 32);
        let scale = match order {
            Some(order) => order[4 * c + lane / 8] / 2,
            None => c as u8,
        };
        out[c][lane] = [2 * scale, 2 * scale + 1];
        i += 1;
    }
    out
}

/// From 16 bytes: in quarter `l`, 16-bit lane `c` is byte `4 l + c`.
///
/// # Safety
/// AVX2 and AVX-512 F.
#[inline(always)]
unsafe fn quartered(scales: __m128i) -> __m512i {
    // SAFETY: the caller's. What is not used may be anything.
    unsafe {
        let wide = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(scales));
        _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), wide)
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

macro_rules! decode {
    ($block:ident, $order:ident $spread:ident, offset $offset:literal, signs $signs:literal, $self:ident => $quants:expr, $scales:expr) => {
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
            const ORDER: [u8; 16] = $order;
            const OFFSET: i32 = $offset;
            type Tables = [__m512i; 4];
            #[inline(always)]
            unsafe fn tables() -> [__m512i; 4] {
                // SAFETY: the caller's; loads are of whole arrays.
                unsafe {
                    let mut tables = [_mm512_setzero_si512(); 4];
                    // The compiler would make two shuffles of some of these if it knew them.
                    for (table, bytes) in tables.iter_mut().zip(std::hint::black_box(&$spread)) {
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

decode!(BlockTQ2_0, IN_ORDER SPREAD_IN_ORDER, offset 1, signs false, self => (two_bits(&self.qs), [0; 4]), {
    let ones = _mm_set1_epi16(1);
    Scales::Of32(ones)
});
decode!(BlockTQ1_0, IN_ORDER SPREAD_IN_ORDER, offset 1, signs false, self => {
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

/// Magnitudes of the 2-bit types by their codes.
const TWO_BIT: [u8; 16] = [8, 25, 43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

decode!(BlockIQ2_XXS, EIGHTS SPREAD_EIGHTS, offset 0, signs true, self => {
    // Four indices and four signs with a scale, in turn.
    let words = _mm512_loadu_si512(self.qs.as_ptr().cast());
    let index = _mm512_cvtepu8_epi16(_mm512_cvtepi64_epi32(words));
    let signs = made_even(seven_bits(_mm512_cvtepi64_epi32(_mm512_srli_epi64::<32>(words))));
    (of_eights(look_up(&codes::IQ2_XXS, index), &TWO_BIT), in_order(signs, &EIGHTS))
}, top_nibbles(_mm512_cvtepi64_epi32(_mm512_srli_epi64::<32>(_mm512_loadu_si512(self.qs.as_ptr().cast())))));
decode!(BlockIQ2_XS, EIGHTS SPREAD16, offset 0, signs true, self => {
    let words = _mm512_loadu_si512(self.qs.as_ptr().cast());
    let index = _mm512_and_si512(words, _mm512_set1_epi16(511));
    let signs = made_even(_mm512_cvtepi16_epi8(_mm512_srli_epi16::<9>(words)));
    (of_eights(look_up(&codes::IQ2_XS, index), &TWO_BIT), in_order(signs, &EIGHTS))
}, Scales::Of16(odd_nibbles(self.scales)));
decode!(BlockIQ2_S, EIGHTS SPREAD16, offset 0, signs true, self => {
    let (low, signs) = (&self.qs.as_chunks::<32>().0[0], &self.qs.as_chunks::<32>().0[1]);
    // Bits 2 i and up of byte g to bits 8 and up of lane 4 g + i.
    let bytes = _mm512_set1_epi64(i64::from_le_bytes(self.qh));
    let own = |byte: i64| 0x8000_8000_8000_8000_u64 as i64 | (byte * 0x0001_0001_0001_0001);
    let own = _mm512_setr_epi64(own(0), own(1), own(2), own(3), own(4), own(5), own(6), own(7));
    let high = _mm512_mullo_epi16(_mm512_shuffle_epi8(bytes, own), _mm512_set1_epi64(0x0004_0010_0040_0100));
    let index = _mm512_or_si512(widened(low), _mm512_and_si512(high, _mm512_set1_epi16(0x300)));
    let signs = _mm256_loadu_si256(signs.as_ptr().cast());
    (of_eights(look_up(&codes::IQ2_S, index), &TWO_BIT), in_order(signs, &EIGHTS))
}, Scales::Of16(odd_nibbles(self.scales)));
decode!(BlockIQ3_XXS, FOURS SPREAD_FOURS, offset 0, signs true, self => {
    let [first, second, words] = self.qs.as_chunks::<32>().0 else { unreachable!("96 bytes") };
    let signs = made_even(seven_bits(_mm256_loadu_si256(words.as_ptr().cast())));
    let codes = [look_up(&codes::IQ3_XXS, widened(first)), look_up(&codes::IQ3_XXS, widened(second))];
    const VALUES: [u8; 16] = [4, 12, 20, 28, 36, 44, 52, 62, 0, 0, 0, 0, 0, 0, 0, 0];
    (of_fours(codes, &VALUES), in_order(signs, &FOURS))
}, top_nibbles(_mm256_loadu_si256(self.qs[64..].as_ptr().cast())));
decode!(BlockIQ3_S, FOURS SPREAD_FOURS, offset 0, signs true, self => {
    let ninth = u64::from_le_bytes(self.qh);
    let mut found = [_mm512_setzero_si512(); 2];
    for (i, (found, low)) in found.iter_mut().zip(self.qs.as_chunks::<32>().0).enumerate() {
        let low = widened(low);
        let index = _mm512_mask_add_epi16(low, (ninth >> (32 * i)) as u32, low, _mm512_set1_epi16(256));
        *found = look_up(&codes::IQ3_S, index);
    }
    const VALUES: [u8; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0];
    (of_fours(found, &VALUES), in_order(_mm256_loadu_si256(self.signs.as_ptr().cast()), &FOURS))
}, scales_iq3(self.scales));

/// `8 grid + delta + 9`: what the IQ1 types' eighths are, plus 9. `deltas`: 0 or 2 for each of 32 points.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn eighths(index: __m512i, deltas: __m512i) -> [__m512i; 4] {
    const VALUES: [u8; 16] = [0, 8, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the caller's.
    unsafe {
        let mut q = of_eights(look_up(&codes::IQ1_S, index), &VALUES);
        for (r, q) in q.iter_mut().enumerate() {
            // Lanes 2 r and 2 r + 1 of each quarter over eight bytes each.
            let spread = |lane: usize| 0x0101_0101_0101_0101 * (2 * lane as i64);
            let own = _mm512_broadcast_i32x4(_mm_set_epi64x(spread(2 * r + 1), spread(2 * r)));
            *q = _mm512_add_epi8(*q, _mm512_shuffle_epi8(deltas, own));
        }
        q
    }
}
/// 2 where `bit` is not set.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn two_unless(x: __m512i, bit: i16) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_maskz_set1_epi16(_mm512_testn_epi16_mask(x, _mm512_set1_epi16(bit)), 2) }
}
decode!(BlockIQ1_S, EIGHTS SPREAD_EIGHTS, offset 9, signs false, self => {
    // Word g for lanes 4 g to 4 g + 3.
    let words = _mm512_cvtepu16_epi64(_mm_loadu_si128(self.qh.as_ptr().cast()));
    let words = _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 8, 9, 8, 9, 8, 9, 8, 9)));
    let high = _mm512_srlv_epi16(words, _mm512_set1_epi64(0x0009_0006_0003_0000));
    let high = _mm512_slli_epi16::<8>(_mm512_and_si512(high, _mm512_set1_epi16(7)));
    (eighths(_mm512_or_si512(widened(&self.qs), high), two_unless(words, i16::MIN)), [0; 4])
}, {
    let scales = _mm_srli_epi16::<11>(_mm_loadu_si128(self.qh.as_ptr().cast()));
    Scales::Of32(_mm_or_si128(_mm_and_si128(scales, _mm_set1_epi16(14)), _mm_set1_epi16(1)))
});
decode!(BlockIQ1_M, EIGHTS SPREAD16, offset 9, signs false, self => {
    // A nibble for each lane, at its bottom.
    let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(self.qh.as_ptr().cast()));
    let nibbles = _mm512_or_si512(bytes, _mm512_slli_epi32::<12>(bytes));
    let high = _mm512_slli_epi16::<8>(_mm512_and_si512(nibbles, _mm512_set1_epi16(7)));
    (eighths(_mm512_or_si512(widened(&self.qs), high), two_unless(nibbles, 8)), [0; 4])
}, {
    // Three bits at 0, 3, 6 and 9 of each of four words.
    let words = _mm256_cvtepu16_epi64(_mm_cvtsi64_si128(i64::from_le_bytes(self.scales)));
    let first = 0x0100_0100_0100_0100;
    let words = _mm256_shuffle_epi8(words, _mm256_setr_epi64x(first, first + 0x0808_0808_0808_0808, first, first + 0x0808_0808_0808_0808));
    let scales = _mm256_and_si256(_mm256_srlv_epi16(words, _mm256_set1_epi64x(0x0009_0006_0003_0000)), _mm256_set1_epi16(7));
    Scales::Of16(odd(_mm256_cvtepi16_epi8(scales)))
});
