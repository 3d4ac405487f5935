//! Narrow blocks of weights in registers.

use super::super::portable::{Narrows, narrow_count, unpack_narrow};
use super::decode::{look_up, mask, nibbles, widen4};
use quant::blocks::*;
use quant::unpack::{FP4_VALUES, IQ4_VALUES, Unpack};
use std::arch::x86_64::*;

/// Blocks of narrow blocks that can be taken into registers.
pub trait DecodeNarrow: Unpack {
    /// What bytes are too large by, a divisor of 128; `None`: they have signs.
    const OFFSET: Option<u8> = None;
    /// No byte is beyond 16 either way, although some have signs.
    const SMALL: bool = false;
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
    /// The narrow blocks in memory, from `at` on, as the portable kernel unpacks them, with `plus` added to their bytes.
    ///
    /// # Safety
    /// AVX2, F16C.
    #[inline(always)]
    unsafe fn store(&self, at: usize, plus: u8, out: &mut Narrows) {
        for part in 0..narrow_count::<Self>().0 {
            // SAFETY: the caller's; the store is of the whole array.
            unsafe {
                let plus = plus.wrapping_sub(Self::OFFSET.unwrap_or(0));
                let q = _mm256_add_epi8(self.quants(part), _mm256_set1_epi8(plus as i8));
                _mm256_storeu_si256(out.q[at + part].as_mut_ptr().cast(), q);
                out.d[at + part] = _mm_cvtss_f32(Self::scales([self.scale(part); 4]));
                if Self::HAS_MINS {
                    out.dmin[at + part] = -_mm_cvtss_f32(widen4([self.min(); 4]));
                }
            }
        }
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
    const SMALL: bool = true;
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

/// Values of blocks of 32; `false` if the bytes are not aligned as blocks. Nothing is fused, as in the scalar code.
///
/// # Safety
/// AVX2, F16C.
#[inline(always)]
pub unsafe fn values<B: DecodeNarrow>(bytes: &[u8], out: &mut [f32]) -> bool {
    let Ok(blocks) = bytemuck::try_cast_slice::<u8, B>(bytes) else { return false };
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<32>().0) {
        // SAFETY: the caller's; stores are inside the array.
        unsafe {
            let q = block.quants(0);
            let d = _mm256_broadcastss_ps(B::scales([block.scale(0); 4]));
            let min = _mm256_broadcastss_ps(widen4([block.min(); 4]));
            let octets = [_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q)];
            for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let octet = if i % 2 == 0 { octets[i / 2] } else { _mm_srli_si128::<8>(octets[i / 2]) };
                let wide = match B::OFFSET {
                    None => _mm256_cvtepi8_epi32(octet),
                    Some(offset) => _mm256_sub_epi32(_mm256_cvtepu8_epi32(octet), _mm256_set1_epi32(i32::from(offset))),
                };
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(wide), d);
                _mm256_storeu_ps(out.as_mut_ptr(), if B::HAS_MINS { _mm256_add_ps(scaled, min) } else { scaled });
            }
        }
    }
    true
}

/// Types that are unpacked by the scalar code.
macro_rules! narrow_by_scalar {
    ($($block:ident, $self:ident, $part:ident => $scale:expr;)*) => {$(
        impl DecodeNarrow for $block {
            type Scale = f32;
            #[inline(always)]
            unsafe fn quants(&self, part: usize) -> __m256i {
                let mut all = Narrows::new();
                unpack_narrow(self, 0, &mut all);
                // SAFETY: the caller's; the load is of the whole array.
                unsafe { _mm256_loadu_si256(all.q[part].as_ptr().cast()) }
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
            #[inline(always)]
            unsafe fn store(&self, at: usize, plus: u8, out: &mut Narrows) {
                unpack_narrow(self, at, out);
                for q in out.q[at..][..narrow_count::<Self>().0].as_flattened_mut() {
                    *q = q.wrapping_add(plus as i8);
                }
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
