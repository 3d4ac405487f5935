//! Types whose values are points of lattices with signs: points from tables, signs and scales as bits, for AVX2 and AVX-512.

use super::decode::{DecodeWide, SuperScales, WideRegisters, scramble};
use quant::blocks::*;
use quant::unpack::{IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, SIGNS};
use std::arch::x86_64::*;

/// Scales of the groups.
pub enum Scales {
    /// 8 groups of 32, as i16.
    Of32(__m128i),
    /// 16 groups of 16, as i8.
    Of16(__m128i),
}

/// A block of points and signs.
pub trait Lattice: SuperScales {
    /// Eight bytes each, the first lowest.
    ///
    /// # Safety
    /// AVX2.
    unsafe fn points(&self) -> [u64; 32];
    /// A bit for each value, set where it is less than 0.
    fn signs(&self) -> [u64; 4];
    /// # Safety
    /// AVX2.
    unsafe fn scales(&self) -> Scales;
}

/// Points of eight bytes. (Written as loops: `array::from_fn` is not always inlined, and would cost a call for each.)
#[inline(always)]
fn points8(point: impl Fn(usize) -> u64) -> [u64; 32] {
    let mut points = [0; 32];
    for (i, out) in points.iter_mut().enumerate() {
        *out = point(i);
    }
    points
}

/// Points of four bytes.
#[inline(always)]
fn points4(point: impl Fn(usize) -> u32) -> [u64; 32] {
    points8(|i| u64::from(point(2 * i)) | u64::from(point(2 * i + 1)) << 32)
}

/// Eight bytes for each word.
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
pub fn word_of(byte: impl Fn(usize) -> u8) -> u64 {
    let mut word = 0;
    for i in 0..8 {
        word |= u64::from(byte(i)) << (8 * i);
    }
    word
}

/// Sign bits of 64 values from the eight 7-bit indices of each word.
#[inline(always)]
fn seven_bit_signs(index: impl Fn(usize) -> usize) -> [u64; 4] {
    bytes(|i| SIGNS[index(i) & 127])
}

/// Sixteen scales `2 s + 1` of eight bytes, the low nibble first.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn odd_nibbles(scales: u64) -> Scales {
    // SAFETY: the caller's.
    unsafe {
        let low = _mm_cvtsi64_si128((scales & 0x0f0f_0f0f_0f0f_0f0f) as i64);
        let high = _mm_cvtsi64_si128((scales >> 4 & 0x0f0f_0f0f_0f0f_0f0f) as i64);
        let all = _mm_unpacklo_epi8(low, high);
        Scales::Of16(_mm_or_si128(_mm_add_epi8(all, all), _mm_set1_epi8(1)))
    }
}

/// Scales of groups of 32.
///
/// # Safety
/// SSE4.1.
#[inline(always)]
pub unsafe fn of32(scales: u64) -> Scales {
    // SAFETY: the caller's.
    unsafe { Scales::Of32(_mm_cvtepi8_epi16(_mm_cvtsi64_si128(scales as i64))) }
}

/// Sixteen indices, of bytes and of what `high` adds to them.
///
/// # Safety
/// AVX2; 16 bytes from `start` on are inside `low`.
#[inline(always)]
unsafe fn indices(low: &[u8], start: usize, high: __m256i) -> [u16; 16] {
    debug_assert!(start + 16 <= low.len());
    let mut out = [0; 16];
    // SAFETY: the caller's; the store is of the whole array.
    unsafe {
        let low = _mm256_cvtepu8_epi16(_mm_loadu_si128(low.as_ptr().add(start).cast()));
        _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_or_si256(low, high));
    }
    // The compiler would gather points by one instruction if it saw that vector, which is slower.
    std::hint::black_box(out)
}

macro_rules! lattice {
    ($block:ident, $self:ident => $points:expr, $signs:expr, $scales:expr) => {
        impl Lattice for $block {
            #[inline(always)]
            unsafe fn points(&$self) -> [u64; 32] {
                $points
            }
            #[inline(always)]
            fn signs(&$self) -> [u64; 4] {
                $signs
            }
            #[inline(always)]
            unsafe fn scales(&$self) -> Scales {
                // SAFETY: the caller's.
                unsafe { $scales }
            }
        }
        impl DecodeWide for $block {
            const SIGNED: bool = true;
            #[inline(always)]
            unsafe fn registers(&self) -> WideRegisters {
                // SAFETY: the caller's.
                unsafe { registers(self) }
            }
        }
    };
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn registers<B: Lattice>(block: &B) -> WideRegisters {
    // SAFETY: the caller's.
    unsafe {
        let (points, signs) = (block.points(), block.signs());
        let mut q = [_mm256_setzero_si256(); 8];
        for (g, q) in q.iter_mut().enumerate() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| points[4 * g + i] as i64);
            *q = negated(_mm256_setr_epi64x(a, b, c, d), (signs[g / 2] >> (32 * (g % 2))) as u32);
        }
        let scales = match block.scales() {
            Scales::Of32(scales) => _mm256_broadcastsi128_si256(scales),
            Scales::Of16(scales) => _mm256_cvtepi8_epi16(scramble(scales)),
        };
        WideRegisters { q, scales, mins: scales }
    }
}

/// Bytes, less than 0 where bits are set.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn negated(x: __m256i, bits: u32) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let (low, high) = (0x0101_0101_0101_0101, 0x0303_0303_0303_0303);
        let own = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), _mm256_setr_epi64x(0, low, 2 * low, high));
        let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let minus = _mm256_cmpeq_epi8(_mm256_and_si256(own, select), select);
        _mm256_sub_epi8(_mm256_xor_si256(x, minus), minus)
    }
}

lattice!(BlockIQ2_XXS, self => {
    points8(|i| IQ2_XXS_GRID[usize::from(self.qs[i / 4 * 4 + i % 4 / 2] >> (8 * (i % 2)) & 255)])
}, {
    let tail = |g: usize| u32::from(self.qs[4 * g + 2]) | u32::from(self.qs[4 * g + 3]) << 16;
    seven_bit_signs(|i| (tail(i / 4) >> (7 * (i % 4))) as usize)
}, of32(word_of(|g| (self.qs[4 * g + 3] >> 11 & 30 | 1) as u8)));
lattice!(BlockIQ2_XS, self => {
    points8(|i| IQ2_XS_GRID[usize::from(self.qs[i] & 511)])
}, seven_bit_signs(|i| usize::from(self.qs[i] >> 9)), odd_nibbles(u64::from_le_bytes(self.scales)));
lattice!(BlockIQ2_S, self => {
    let mut index = [[0; 16]; 2];
    for (half, index) in index.iter_mut().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| self.qh[4 * half + i]);
        // SAFETY: the caller's; both halves are inside `qs`.
        *index = unsafe {
            // Bits 2 i and up of each byte to bits 8 and up.
            let high = _mm256_set1_epi32(i32::from_le_bytes([a, b, c, d]));
            let of = |byte: i64| (0xff00_ff00_ff00_ff00_u64 as i64) | (byte * 0x0001_0001_0001_0001);
            let own = _mm256_shuffle_epi8(high, _mm256_setr_epi64x(of(0), of(1), of(2), of(3)));
            let high = _mm256_mullo_epi16(own, _mm256_set1_epi64x(0x0004_0010_0040_0100));
            indices(&self.qs, 16 * half, _mm256_and_si256(high, _mm256_set1_epi16(0x300)))
        };
    }
    points8(|i| IQ2_S_GRID[usize::from(index[i / 16][i % 16] & 1023)])
}, bytes(|i| self.qs[32 + i]), odd_nibbles(u64::from_le_bytes(self.scales)));
lattice!(BlockIQ3_XXS, self => points4(|i| IQ3_XXS_GRID[usize::from(self.qs[i])]), {
    let tail = |g: usize| {
        let at = 64 + 4 * g;
        u32::from_le_bytes([self.qs[at], self.qs[at + 1], self.qs[at + 2], self.qs[at + 3]])
    };
    seven_bit_signs(|i| (tail(i / 4) >> (7 * (i % 4))) as usize)
}, of32(word_of(|g| self.qs[64 + 4 * g + 3] >> 3 & 30 | 1)));
lattice!(BlockIQ3_S, self => {
    let mut index = [[0; 16]; 4];
    for (c, index) in index.iter_mut().enumerate() {
        let bits = i16::from_le_bytes([self.qh[2 * c], self.qh[2 * c + 1]]);
        // SAFETY: the caller's; 16 bytes of each quarter are inside `qs`.
        *index = unsafe {
            let select = _mm256_setr_epi16(
                1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768,
            );
            let own = _mm256_and_si256(_mm256_set1_epi16(bits), select);
            let high = _mm256_and_si256(_mm256_cmpeq_epi16(own, select), _mm256_set1_epi16(256));
            indices(&self.qs, 16 * c, high)
        };
    }
    points4(|i| IQ3_S_GRID[usize::from(index[i / 16][i % 16] & 511)])
}, bytes(|i| self.signs[i]), of32(word_of(|g| (self.scales[g / 2] >> (4 * (g % 2)) & 15) << 1 | 1)));
