//! Types whose values are points of lattices, most with signs: points from tables, signs and scales as vectors, for AVX2. What
//! AVX-512 takes of a block in the same way is here, too.

use super::decode::{DecodeWide, Take, decode, scramble};
use quant::blocks::*;
use quant::unpack::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};
use std::arch::x86_64::*;
use std::hint::black_box;

/// Scales of the groups.
pub enum Scales {
    /// 8 groups of 32, as i16.
    Of32(__m128i),
    /// 16 groups of 16, as i8.
    Of16(__m128i),
}

impl Scales {
    /// As rows have them; there are no mins.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn spread(self) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Scales::Of32(scales) => [_mm256_broadcastsi128_si256(scales); 2],
                Scales::Of16(scales) => [_mm256_cvtepi8_epi16(scramble(scales)); 2],
            }
        }
    }
}

/// Points of a register. Closures only load: what is not inlined would be a call for each.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn eights(c: usize, point: impl Fn(usize) -> u64) -> __m256i {
    let of = |i| point(4 * c + i) as i64;
    // SAFETY: the caller's.
    unsafe { _mm256_setr_epi64x(of(0), of(1), of(2), of(3)) }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn fours(c: usize, point: impl Fn(usize) -> u32) -> __m256i {
    let of = |i| point(8 * c + i) as i32;
    // SAFETY: the caller's.
    unsafe { _mm256_setr_epi32(of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7)) }
}

/// Four fields of 7 bits of each of eight words, from the low bits up, as bytes.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn seven_bits(words: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let a = _mm256_and_si256(words, _mm256_set1_epi32(0x7f));
        let b = _mm256_and_si256(_mm256_slli_epi32::<1>(words), _mm256_set1_epi32(0x7f00));
        let c = _mm256_and_si256(_mm256_slli_epi32::<2>(words), _mm256_set1_epi32(0x7f_0000));
        let d = _mm256_and_si256(_mm256_slli_epi32::<3>(words), _mm256_set1_epi32(0x7f00_0000));
        _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d))
    }
}

/// Bytes of 7 bits, with an eighth one that makes the number of those that are set even (as `quant` unpacks them).
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn made_even(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        // 128 where a nibble has an odd number of bits.
        let (even, odd) = (0x0080_8000_8000_0080_u64 as i64, 0x8000_0080_0080_8000_u64 as i64);
        let odd = _mm256_setr_epi64x(odd, even, odd, even);
        let low_bits = _mm256_set1_epi8(15);
        let low = _mm256_shuffle_epi8(odd, _mm256_and_si256(bytes, low_bits));
        let high = _mm256_shuffle_epi8(odd, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_bits));
        _mm256_or_si256(bytes, _mm256_xor_si256(low, high))
    }
}

/// Sixteen scales `2 s + 1` of eight bytes, the low nibble first.
///
/// # Safety
/// SSE2.
#[inline(always)]
pub unsafe fn odd_nibbles(scales: [u8; 8]) -> __m128i {
    // SAFETY: the caller's.
    unsafe {
        let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(scales));
        let both = _mm_unpacklo_epi8(bytes, _mm_srli_epi16::<4>(bytes));
        odd(_mm_and_si128(both, _mm_set1_epi8(15)))
    }
}

/// `2 s + 1` of bytes or, where high bytes are 0, of 16-bit lanes with 1 in the high ones, too.
///
/// # Safety
/// SSE2.
#[inline(always)]
pub unsafe fn odd(scales: __m128i) -> __m128i {
    // SAFETY: the caller's.
    unsafe { _mm_or_si128(_mm_add_epi8(scales, scales), _mm_set1_epi8(1)) }
}

/// The top four bits of eight words as scales of groups of 32.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn top_nibbles(words: __m256i) -> Scales {
    // SAFETY: the caller's.
    unsafe {
        let scales = _mm256_and_si256(_mm256_srli_epi32::<27>(words), _mm256_set1_epi32(30));
        let scales = _mm256_or_si256(scales, _mm256_set1_epi32(1));
        Scales::Of32(_mm_packus_epi32(_mm256_castsi256_si128(scales), _mm256_extracti128_si256::<1>(scales)))
    }
}

/// Scales of IQ3_S.
///
/// # Safety
/// SSE4.1.
#[inline(always)]
pub unsafe fn scales_iq3(scales: [u8; 4]) -> Scales {
    // SAFETY: the caller's.
    unsafe {
        let [a, b, c, d] = scales;
        Scales::Of32(_mm_cvtepu8_epi16(odd_nibbles([a, b, c, d, 0, 0, 0, 0])))
    }
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
    black_box(out)
}

/// Spread byte `4 g + i` of each half over eight bytes.
static SPREAD_BITS: [[u8; 32]; 4] = {
    let mut out = [[0; 32]; 4];
    let mut i = 0;
    while i < 128 {
        out[i / 32][i % 32] = (i / 32 * 4 + i % 32 / 8) as u8;
        i += 1;
    }
    out
};

/// -1 where the bit of a value is set, 1 where it is not.
struct Signs {
    /// A byte for eight values, the first half of them in both halves, then the other.
    halves: [__m256i; 2],
    spread: &'static [[u8; 32]; 4],
}

impl Signs {
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn new(bits: __m256i) -> Signs {
        // SAFETY: the caller's.
        let halves = unsafe { [_mm256_permute4x64_epi64::<0x44>(bits), _mm256_permute4x64_epi64::<0xee>(bits)] };
        // The compiler would make two shuffles of some of these if it knew them.
        Signs { halves, spread: black_box(&SPREAD_BITS) }
    }

    /// Of register `c`.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn of(&self, c: usize) -> __m256i {
        // SAFETY: the caller's; the load is of a whole array.
        unsafe {
            let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let spread = _mm256_loadu_si256(self.spread[c % 4].as_ptr().cast());
            let own = _mm256_and_si256(_mm256_shuffle_epi8(self.halves[c / 4], spread), select);
            _mm256_or_si256(_mm256_cmpeq_epi8(own, select), _mm256_set1_epi8(1))
        }
    }
}

/// A lattice with signs: its table, points of a register, sign bits of all values.
macro_rules! lattice {
    ($block:ident $grid:ident, $self:ident $c:ident $table:ident => $first:stmt; $points:expr, $signs:expr, $scales:expr) => {
        decode!($block, offset 0, signed true, $self out => {
            // The compiler would ask for the table's address for each point if it knew it.
            let $table = black_box(&$grid);
            let signs = Signs::new($signs);
            $first
            for $c in 0..8 {
                out.take($c, $points, signs.of($c));
            }
        }, $scales.spread());
    };
}

lattice!(BlockIQ2_XXS IQ2_XXS_GRID, self c grid => (); {
    eights(c, |i| grid[usize::from(self.qs[i / 4 * 4 + i % 4 / 2] >> (8 * (i % 2)) & 255)])
}, made_even(seven_bits(tails(&self.qs))), top_nibbles(tails(&self.qs)));
lattice!(BlockIQ2_XS IQ2_XS_GRID, self c grid => let words = quads(&self.qs); {
    eights(c, |i| grid[(words[i / 4] >> (16 * (i % 4)) & 511) as usize])
}, {
    let low = _mm256_srli_epi16::<9>(_mm256_loadu_si256(self.qs.as_ptr().cast()));
    let high = _mm256_srli_epi16::<9>(_mm256_loadu_si256(self.qs.as_ptr().add(16).cast()));
    made_even(_mm256_permute4x64_epi64::<0xd8>(_mm256_packus_epi16(low, high)))
}, Scales::Of16(odd_nibbles(self.scales)));
lattice!(BlockIQ2_S IQ2_S_GRID, self c grid => let index = indices_iq2(self); {
    // SAFETY: indices have ten bits.
    eights(c, |i| *grid.get_unchecked(usize::from(index[i / 16][i % 16])))
}, _mm256_loadu_si256(self.qs.as_ptr().add(32).cast()), Scales::Of16(odd_nibbles(self.scales)));
lattice!(BlockIQ3_XXS IQ3_XXS_GRID, self c grid => (); fours(c, |i| grid[usize::from(self.qs[i])]), {
    made_even(seven_bits(_mm256_loadu_si256(self.qs.as_ptr().add(64).cast())))
}, top_nibbles(_mm256_loadu_si256(self.qs.as_ptr().add(64).cast())));
lattice!(BlockIQ3_S IQ3_S_GRID, self c grid => let index = indices_iq3(self); {
    // SAFETY: indices have nine bits.
    fours(c, |i| *grid.get_unchecked(usize::from(index[i / 16][i % 16])))
}, _mm256_loadu_si256(self.signs.as_ptr().cast()), scales_iq3(self.scales));

/// Four words each, the first lowest.
#[inline(always)]
fn quads(words: &[u16; 32]) -> [u64; 8] {
    let mut out = [0; 8];
    for (out, words) in out.iter_mut().zip(words.as_chunks::<4>().0) {
        *out = bytemuck::cast(*words);
    }
    // The compiler would take words out of vectors if it saw where these come from.
    black_box(out)
}

/// Of ten bits.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn indices_iq2(block: &BlockIQ2_S) -> [[u16; 16]; 2] {
    let mut index = [[0; 16]; 2];
    for (half, index) in index.iter_mut().enumerate() {
        let bits = &block.qh[4 * half..][..4];
        // SAFETY: the caller's; both halves are inside `qs`.
        *index = unsafe {
            // Bits 2 i and up of each byte to bits 8 and up.
            let high = _mm256_set1_epi32(i32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]));
            let of = |byte: i64| (0xff00_ff00_ff00_ff00_u64 as i64) | (byte * 0x0001_0001_0001_0001);
            let own = _mm256_shuffle_epi8(high, _mm256_setr_epi64x(of(0), of(1), of(2), of(3)));
            let high = _mm256_mullo_epi16(own, _mm256_set1_epi64x(0x0004_0010_0040_0100));
            indices(&block.qs, 16 * half, _mm256_and_si256(high, _mm256_set1_epi16(0x300)))
        };
    }
    index
}

/// Of nine bits.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn indices_iq3(block: &BlockIQ3_S) -> [[u16; 16]; 4] {
    let mut index = [[0; 16]; 4];
    for (c, index) in index.iter_mut().enumerate() {
        let bits = i16::from_le_bytes([block.qh[2 * c], block.qh[2 * c + 1]]);
        // SAFETY: the caller's; 16 bytes of each quarter are inside `qs`.
        *index = unsafe {
            let select =
                _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
            let own = _mm256_and_si256(_mm256_set1_epi16(bits), select);
            let high = _mm256_and_si256(_mm256_cmpeq_epi16(own, select), _mm256_set1_epi16(256));
            indices(&block.qs, 16 * c, high)
        };
    }
    index
}

/// The second words of eight pairs.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn tails(pairs: &[u16; 32]) -> __m256i {
    // SAFETY: the caller's; loads are inside the array.
    unsafe {
        let (low, high) = (_mm256_loadu_ps(pairs.as_ptr().cast()), _mm256_loadu_ps(pairs.as_ptr().add(16).cast()));
        _mm256_permute4x64_epi64::<0xd8>(_mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(low, high)))
    }
}

/// IQ1: `8 grid + delta + 9`, what eighths are, plus 9. `$deltas`: 0 or 2 for each of a register's values.
macro_rules! ternary {
    ($block:ident, $self:ident $c:ident => $index:expr, $deltas:expr, $scales:expr) => {
        decode!($block, offset 9, signed false, $self out => {
            let grid = black_box(&IQ1_GRID);
            for $c in 0..8 {
                let level = _mm256_add_epi8(eights($c, |i| grid[$index(i) % 2048]), _mm256_set1_epi8(1));
                out.take($c, _mm256_or_si256(_mm256_slli_epi16::<3>(level), $deltas), _mm256_setzero_si256());
            }
        }, $scales.spread());
    };
}

ternary!(BlockIQ1_S, self c => {
    |i: usize| usize::from(self.qs[i]) | usize::from(self.qh[i / 4] >> (3 * (i % 4)) & 7) << 8
}, _mm256_set1_epi8(2 - (self.qh[c] >> 15 << 1) as i8), {
    let scales = _mm_srli_epi16::<11>(_mm_loadu_si128(self.qh.as_ptr().cast()));
    Scales::Of32(_mm_or_si128(_mm_and_si128(scales, _mm_set1_epi16(14)), _mm_set1_epi16(1)))
});
ternary!(BlockIQ1_M, self c => {
    |i: usize| usize::from(self.qs[i]) | usize::from(self.qh[i / 2] >> (4 * (i % 2)) & 7) << 8
}, {
    // The top bits of four nibbles, each over eight bytes.
    let (ones, low, high) = (0x0101_0101_0101_0101, 0x0808_0808_0808_0808, 0x8080_8080_8080_8080_u64 as i64);
    let bits = _mm256_set1_epi16(i16::from_le_bytes([self.qh[2 * c], self.qh[2 * c + 1]]));
    let own = _mm256_shuffle_epi8(bits, _mm256_setr_epi64x(0, 0, ones, ones));
    let own = _mm256_and_si256(own, _mm256_setr_epi64x(low, high, low, high));
    _mm256_and_si256(_mm256_cmpeq_epi8(own, _mm256_setzero_si256()), _mm256_set1_epi8(2))
}, {
    // Three bits at 0, 3, 6 and 9 of each of four words.
    let mut scales = [0; 16];
    for (g, scale) in scales.iter_mut().enumerate() {
        let word = u16::from_le_bytes([self.scales[g / 4 * 2], self.scales[g / 4 * 2 + 1]]);
        *scale = (word >> (3 * (g % 4)) & 7) as u8;
    }
    Scales::Of16(odd(_mm_loadu_si128(scales.as_ptr().cast())))
});
