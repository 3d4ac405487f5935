//! Blocks of weights in registers.

use super::super::portable::Wide;
pub use super::super::super_scales::SuperScales;
use half::f16;
use quant::blocks::*;
use quant::unpack::IQ4_VALUES;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Takes registers of a block as they are unpacked: all of them and their signs would not fit.
pub trait Take {
    /// Register `c` of eight: unsigned bytes and, where values have signs, bytes with the same.
    ///
    /// # Safety
    /// AVX2.
    unsafe fn take(&mut self, c: usize, q: __m256i, signs: __m256i);
}

/// A wide block that can be taken into registers: value `j` is `(q[j] - OFFSET) * d * scale - dmin * min`.
pub trait DecodeWide: SuperScales {
    /// Values have signs apart.
    const SIGNED: bool;
    /// What `q` are too large by.
    const OFFSET: u8;
    /// # Safety
    /// AVX2.
    unsafe fn quants(&self, out: &mut impl Take);
    /// Scales and mins, 16 x i16 each, groups in scrambled order.
    ///
    /// # Safety
    /// AVX2.
    unsafe fn scales_mins(&self) -> [__m256i; 2];
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn unsigned(q: [__m256i; 8], out: &mut impl Take) {
    for (c, q) in q.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { out.take(c, q, _mm256_setzero_si256()) }
    }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn signed(q: [__m256i; 8], out: &mut impl Take) {
    for (c, q) in q.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { out.take(c, _mm256_abs_epi8(q), q) }
    }
}

struct Store<'a, B> {
    wide: &'a mut Wide,
    /// Added to bytes.
    plus: u8,
    block: PhantomData<B>,
}

impl<B: DecodeWide> Take for Store<'_, B> {
    #[inline(always)]
    unsafe fn take(&mut self, c: usize, q: __m256i, signs: __m256i) {
        // SAFETY: the caller has AVX2; the store is inside the array.
        unsafe {
            let q = if B::SIGNED { _mm256_sign_epi8(q, signs) } else { q };
            let q = _mm256_add_epi8(q, _mm256_set1_epi8(self.plus.wrapping_sub(B::OFFSET) as i8));
            _mm256_storeu_si256(self.wide.q[32 * c..][..32].as_mut_ptr().cast(), q);
        }
    }
}

/// The block in memory, as the portable kernel unpacks it, with `plus` added to its bytes.
///
/// # Safety
/// AVX2 and F16C.
#[inline(always)]
pub unsafe fn store<B: DecodeWide>(block: &B, plus: u8, wide: &mut Wide) {
    // SAFETY: the caller has AVX2; stores are of whole arrays.
    unsafe {
        wide.d = widen(f16::from_bits(block.d())) * B::FACTOR;
        wide.dmin = widen(f16::from_bits(block.dmin()));
        let [scales, mins] = block.scales_mins();
        _mm256_storeu_si256(wide.scales.as_mut_ptr().cast(), scales);
        _mm256_storeu_si256(wide.mins.as_mut_ptr().cast(), mins);
        block.quants(&mut Store { wide, plus, block: PhantomData::<B> });
    }
}

/// # Safety
/// F16C.
#[inline(always)]
unsafe fn widen(x: f16) -> f32 {
    // SAFETY: the caller has F16C.
    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(x.to_bits())))) }
}

/// # Safety
/// F16C.
#[inline(always)]
pub unsafe fn widen4(x: [u16; 4]) -> __m128 {
    // SAFETY: the caller's.
    unsafe {
        let [a, b, c, d] = x.map(|x| x as i16);
        _mm_cvtph_ps(_mm_setr_epi16(a, b, c, d, 0, 0, 0, 0))
    }
}

/// # Safety
/// AVX2; 32 bytes from `start` on are inside `bytes`.
#[inline(always)]
unsafe fn load(bytes: &[u8], start: usize) -> __m256i {
    debug_assert!(start + 32 <= bytes.len());
    // SAFETY: the caller's.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().add(start).cast()) }
}

/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn mask(x: __m256i, bits: u8) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_and_si256(x, _mm256_set1_epi8(bits as i8)) }
}

/// Nibbles of 128 bytes: 32 bytes for two groups of 32, the first in the low nibbles.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn four_bits(qs: &[u8; 128]) -> [__m256i; 8] {
    // SAFETY: the caller's; loads are inside the array.
    unsafe {
        let mut q = [_mm256_setzero_si256(); 8];
        for j in 0..4 {
            let bytes = load(qs, 32 * j);
            q[2 * j] = mask(bytes, 15);
            q[2 * j + 1] = mask(_mm256_srli_epi16::<4>(bytes), 15);
        }
        q
    }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn two_bits(qs: &[u8; 64]) -> [__m256i; 8] {
    // SAFETY: the caller's; loads are inside the array.
    unsafe {
        let mut q = [_mm256_setzero_si256(); 8];
        for half in 0..2 {
            let bytes = load(qs, 32 * half);
            q[4 * half] = mask(bytes, 3);
            q[4 * half + 1] = mask(_mm256_srli_epi16::<2>(bytes), 3);
            q[4 * half + 2] = mask(_mm256_srli_epi16::<4>(bytes), 3);
            q[4 * half + 3] = mask(_mm256_srli_epi16::<6>(bytes), 3);
        }
        q
    }
}

/// Bit `g` of every byte, as bit `to` of vector `g`.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn bit(bytes: __m256i, g: usize, to: usize) -> __m256i {
    // SAFETY: the caller's. A single bit of a byte stays inside the byte when 16-bit lanes are shifted.
    unsafe {
        let bits = mask(bytes, 1 << g);
        if g <= to {
            _mm256_sll_epi16(bits, _mm_cvtsi32_si128((to - g) as i32))
        } else {
            _mm256_srl_epi16(bits, _mm_cvtsi32_si128((g - to) as i32))
        }
    }
}

/// The 6-bit scales and mins of Q4_K and Q5_K: 8 groups of 32.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn scales_mins(packed: &[u8; 12]) -> (__m128i, __m128i) {
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let scales = [a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4];
    let mins = [b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4];
    // SAFETY: the caller's.
    unsafe {
        let bytes = |words: [u32; 2]| (u64::from(words[0]) | u64::from(words[1]) << 32) as i64;
        let (scales, mins) = (_mm_cvtsi64_si128(bytes(scales)), _mm_cvtsi64_si128(bytes(mins)));
        (_mm_cvtepu8_epi16(scales), _mm_cvtepu8_epi16(mins))
    }
}

/// Scales of groups of 32 for both groups of 16.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn twice(scales: __m128i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_broadcastsi128_si256(scales) }
}

/// The 8 scales of IQ4_XS.
///
/// # Safety
/// SSE4.1.
#[inline(always)]
pub unsafe fn scales_iq4(block: &BlockIQ4_XS) -> __m128i {
    // SAFETY: the caller's.
    unsafe {
        // Every group's bits to the bottom of a 16-bit lane, by multiplying them up to its top and shifting down.
        let low = _mm_cvtsi32_si128(i32::from_le_bytes(block.scales_l));
        let low = _mm_cvtepu8_epi16(_mm_unpacklo_epi8(low, low));
        let low = _mm_srli_epi16::<12>(_mm_mullo_epi16(low, _mm_set1_epi32(0x0100_1000)));
        let high = _mm_set1_epi16(block.scales_h as i16);
        let up = _mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1);
        let high = _mm_srli_epi16::<14>(_mm_mullo_epi16(high, up));
        _mm_sub_epi16(_mm_or_si128(low, _mm_slli_epi16::<4>(high)), _mm_set1_epi16(32))
    }
}

/// The 16 scales of Q3_K, as `quant::unpack::unpack_scales_q3` unpacks them.
///
/// # Safety
/// SSE2.
#[inline(always)]
pub unsafe fn scales_q3(packed: &[u8; 12]) -> __m128i {
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let quad = |low: u32, high: u32| (low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4) as i32;
    let words = [quad(a, c), quad(b, c >> 2), quad(a >> 4, c >> 4), quad(b >> 4, c >> 6)];
    // SAFETY: the caller's.
    unsafe { _mm_sub_epi8(_mm_setr_epi32(words[0], words[1], words[2], words[3]), _mm_set1_epi8(32)) }
}

/// 16 bytes with even groups first.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn scramble(bytes: __m128i) -> __m128i {
    // SAFETY: the caller's.
    unsafe { _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)) }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn both_twice((scales, mins): (__m128i, __m128i)) -> [__m256i; 2] {
    // SAFETY: the caller's.
    unsafe { [twice(scales), twice(mins)] }
}

macro_rules! decode {
    ($block:ident, offset $offset:literal, signed $signed:literal, $self:ident $out:ident => $quants:expr, $scales:expr) => {
        impl DecodeWide for $block {
            const SIGNED: bool = $signed;
            const OFFSET: u8 = $offset;
            #[inline(always)]
            unsafe fn quants(&$self, $out: &mut impl Take) {
                // SAFETY: the caller's; loads are inside arrays.
                unsafe { $quants }
            }
            #[inline(always)]
            unsafe fn scales_mins(&$self) -> [__m256i; 2] {
                // SAFETY: the caller's; loads are inside arrays.
                unsafe { $scales }
            }
        }
    };
}
pub(super) use decode;

decode!(BlockQ4_K, offset 0, signed false, self out => unsigned(four_bits(&self.qs), out), {
    both_twice(scales_mins(&self.scales))
});
decode!(BlockQ5_K, offset 0, signed false, self out => {
    let mut q = four_bits(&self.qs);
    let high = load(&self.qh, 0);
    for (g, q) in q.iter_mut().enumerate() {
        *q = _mm256_or_si256(*q, bit(high, g, 4));
    }
    unsigned(q, out)
}, both_twice(scales_mins(&self.scales)));
decode!(BlockQ6_K, offset 32, signed false, self out => {
    let mut q = [_mm256_setzero_si256(); 8];
    for half in 0..2 {
        let low = [load(&self.ql, 64 * half), load(&self.ql, 64 * half + 32)];
        let high = load(&self.qh, 32 * half);
        let high = [
            _mm256_slli_epi16::<4>(mask(high, 3)),
            _mm256_slli_epi16::<2>(mask(high, 12)),
            mask(high, 48),
            _mm256_srli_epi16::<2>(mask(high, 192)),
        ];
        for i in 0..2 {
            q[4 * half + i] = _mm256_or_si256(mask(low[i], 15), high[i]);
            q[4 * half + 2 + i] = _mm256_or_si256(mask(_mm256_srli_epi16::<4>(low[i]), 15), high[2 + i]);
        }
    }
    unsigned(q, out)
}, [_mm256_cvtepi8_epi16(scramble(_mm_loadu_si128(self.scales.as_ptr().cast()))); 2]);
decode!(BlockQ2_K, offset 0, signed false, self out => unsigned(two_bits(&self.qs), out), {
    let packed = scramble(_mm_loadu_si128(self.scales.as_ptr().cast()));
    let low = _mm_set1_epi8(15);
    let mins = _mm_and_si128(_mm_srli_epi16::<4>(packed), low);
    [_mm256_cvtepu8_epi16(_mm_and_si128(packed, low)), _mm256_cvtepu8_epi16(mins)]
});
decode!(BlockQ3_K, offset 4, signed false, self out => {
    let mut q = two_bits(&self.qs);
    let high = load(&self.hmask, 0);
    for (g, q) in q.iter_mut().enumerate() {
        *q = _mm256_or_si256(*q, bit(high, g, 2));
    }
    unsigned(q, out)
}, [_mm256_cvtepi8_epi16(scramble(scales_q3(&self.scales))); 2]);
decode!(BlockIQ4_XS, offset 0, signed true, self out => {
    let mut q = [_mm256_setzero_si256(); 8];
    for (g, q) in q.iter_mut().enumerate() {
        *q = look_up(&IQ4_VALUES, _mm_loadu_si128(self.qs.as_ptr().add(16 * g).cast()));
    }
    signed(q, out)
}, [twice(scales_iq4(self)); 2]);
decode!(BlockTQ2_0, offset 1, signed false, self out => unsigned(two_bits(&self.qs), out), [_mm256_set1_epi16(1); 2]);
// (By the scalar code.)
decode!(BlockTQ1_0, offset 0, signed true, self out => {
    let mut wide = Wide::new();
    Wide::unpack(self, &mut wide);
    let mut q = [_mm256_setzero_si256(); 8];
    for (q, bytes) in q.iter_mut().zip(wide.q.chunks_exact(32)) {
        *q = _mm256_loadu_si256(bytes.as_ptr().cast());
    }
    signed(q, out)
}, [_mm256_set1_epi16(1); 2]);

/// Nibbles of 16 bytes, low ones first.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn nibbles(bytes: __m128i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { mask(_mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes), 15) }
}

/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn look_up(table: &[i8; 16], bytes: __m128i) -> __m256i {
    // SAFETY: the caller's; the load is of the whole table.
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        _mm256_shuffle_epi8(table, nibbles(bytes))
    }
}
