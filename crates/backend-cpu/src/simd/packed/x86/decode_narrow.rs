//! Narrow blocks of weights in registers.

use super::super::portable::{Narrow, narrow_count, unpack_narrow};
use super::decode::{look_up, mask, nibbles, widen4};
use quant::blocks::*;
use quant::unpack::{FP4_VALUES, IQ4_VALUES, Unpack};
use std::arch::x86_64::*;

/// Blocks of narrow blocks that can be taken into registers.
pub trait DecodeNarrow: Unpack {
    /// What bytes are too large by, a divisor of 128; `None`: they have signs.
    const OFFSET: Option<u8> = None;
    /// A block's scale as it is stored.
    type Scale: Copy + Default;
    /// The bytes of narrow block `part` of those that [`narrow_count`] says there are.
    ///
    /// # Safety
    /// AVX2.
    unsafe fn quants(&self, part: usize) -> __m256i;
    fn scale(&self, part: usize) -> Self::Scale;
    /// # Safety
    /// F16C.
    unsafe fn scales(scales: [Self::Scale; 4]) -> __m128;
    /// What is added to every value, as f16 bits.
    #[inline(always)]
    fn min(&self) -> u16 {
        0
    }
}

/// Bit `j` as bit 4 of byte `j`.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn fifth_bits(qh: [u8; 4]) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let word = _mm256_set1_epi32(i32::from_le_bytes(qh));
        let (low, high) = (0x0101_0101_0101_0101, 0x0303_0303_0303_0303);
        let own = _mm256_shuffle_epi8(word, _mm256_setr_epi64x(0, low, 2 * low, high));
        let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        mask(_mm256_cmpeq_epi8(_mm256_and_si256(own, select), select), 16)
    }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn sixteen(qs: &[u8; 16]) -> __m128i {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe { _mm_loadu_si128(qs.as_ptr().cast()) }
}

macro_rules! narrow {
    ($block:ident, $offset:expr, $self:ident => $q:expr $(, $min:ident)?) => {
        impl DecodeNarrow for $block {
            const OFFSET: Option<u8> = $offset;
            type Scale = u16;
            #[inline(always)]
            unsafe fn quants(&$self, _part: usize) -> __m256i {
                // SAFETY: the caller's; loads are of whole arrays.
                unsafe { $q }
            }
            #[inline(always)]
            fn scale(&self, _part: usize) -> u16 {
                self.d.to_bits()
            }
            #[inline(always)]
            unsafe fn scales(scales: [u16; 4]) -> __m128 {
                // SAFETY: the caller's.
                unsafe { widen4(scales) }
            }
            $(#[inline(always)]
            fn min(&self) -> u16 {
                self.$min.to_bits()
            })?
        }
    };
}
narrow!(BlockQ8_0, None, self => _mm256_loadu_si256(self.qs.as_ptr().cast()));
narrow!(BlockQ4_0, Some(8), self => nibbles(sixteen(&self.qs)));
narrow!(BlockQ4_1, Some(0), self => nibbles(sixteen(&self.qs)), m);
narrow!(BlockQ5_0, Some(16), self => _mm256_or_si256(nibbles(sixteen(&self.qs)), fifth_bits(self.qh)));
narrow!(BlockQ5_1, Some(0), self => _mm256_or_si256(nibbles(sixteen(&self.qs)), fifth_bits(self.qh)), m);
narrow!(BlockIQ4_NL, None, self => look_up(&IQ4_VALUES, sixteen(&self.qs)));

impl DecodeNarrow for BlockMXFP4 {
    type Scale = f32;
    #[inline(always)]
    unsafe fn quants(&self, _part: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe { look_up(&FP4_VALUES, sixteen(&self.qs)) }
    }
    #[inline(always)]
    fn scale(&self, _part: usize) -> f32 {
        quant::unpack::e8m0_half(self.e)
    }
    #[inline(always)]
    unsafe fn scales([a, b, c, d]: [f32; 4]) -> __m128 {
        // SAFETY: the caller's.
        unsafe { _mm_setr_ps(a, b, c, d) }
    }
}

/// Types that are unpacked by the scalar code.
macro_rules! narrow_by_scalar {
    ($($block:ident, $self:ident, $part:ident => $scale:expr;)*) => {$(
        impl DecodeNarrow for $block {
            type Scale = f32;
            #[inline(always)]
            unsafe fn quants(&self, part: usize) -> __m256i {
                let mut bytes = [0i8; 32];
                unpack_narrow(self, |index, w: &Narrow| {
                    if index == part {
                        bytes = w.q;
                    }
                });
                // SAFETY: the caller's; the load is of the whole array.
                unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
            }
            #[inline(always)]
            fn scale(&$self, $part: usize) -> f32 {
                $scale
            }
            #[inline(always)]
            unsafe fn scales([a, b, c, d]: [f32; 4]) -> __m128 {
                // SAFETY: the caller's.
                unsafe { _mm_setr_ps(a, b, c, d) }
            }
        }
    )*};
}
narrow_by_scalar! {
    BlockNVFP4, self, part => quant::unpack::ue4m3_half(self.d[part]);
    BlockQ1_0, self, _part => self.d.to_f32();
    BlockQ2_0, self, _part => self.d.to_f32();
}

const _: () = assert!(narrow_count::<BlockNVFP4>().0 == 4);
