//! Narrow blocks for AVX-512 VNNI, sixteen at a time, two in a register.

use super::super::activations::NarrowBlock;
use super::rows512::{Kernel, quarters};
use bytemuck::Pod;
use quant::blocks::*;
use quant::unpack::{FP4_VALUES, IQ4_VALUES};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Narrow blocks taken together.
const SIXTEEN: usize = 16;

/// A narrow block whose values are bytes times a scale.
pub trait DecodeNarrow512: Pod {
    /// What bytes are too large by: 0, or 128 divided by a power of two.
    const OFFSET: i32;
    /// There is something to add to every value.
    const HAS_MINS: bool = false;
    /// Bytes of two blocks, without sign.
    ///
    /// # Safety
    /// AVX-512 F and BW.
    unsafe fn two(first: &Self, second: &Self) -> __m512i;
    /// # Safety
    /// F16C, AVX-512 F.
    unsafe fn scales(blocks: &[Self; SIXTEEN]) -> __m512;
    /// # Safety
    /// F16C, AVX-512 F.
    #[inline(always)]
    unsafe fn mins(_blocks: &[Self; SIXTEEN]) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_setzero_ps() }
    }
}

/// Activations of sixteen narrow blocks.
#[repr(C, align(64))]
pub struct Sixteen {
    /// Blocks [`FIRST`] and those four further.
    q: [[[i8; 32]; 2]; 8],
    d: [f32; SIXTEEN],
    sums: [f32; SIXTEEN],
    offsets: [i32; SIXTEEN],
}

/// The first of the two blocks in a register: so that the sums of lanes come out in order.
const FIRST: [usize; 8] = [0, 1, 2, 3, 8, 9, 10, 11];

/// The kernel of a type.
pub struct Narrow512<B>(PhantomData<B>);

// SAFETY: every field of the group is written; one or two values are written for each of sixteen blocks.
unsafe impl<B: DecodeNarrow512> Kernel for Narrow512<B> {
    type Block = B;
    type Activation = NarrowBlock;
    type Group = Sixteen;
    type Tables = ();
    const AT_ONCE: usize = SIXTEEN;
    const TERMS: usize = if B::HAS_MINS { 2 } else { 1 };

    #[inline(always)]
    unsafe fn prepare(activations: &[NarrowBlock], group: *mut Sixteen) {
        let missing = NarrowBlock::default();
        for index in 0..SIXTEEN {
            let a = activations.get(index).unwrap_or(&missing);
            // SAFETY: the caller has a group that may be written; indices are inside its arrays.
            unsafe {
                (*group).q[index / 8 * 4 + index % 4][index % 8 / 4] = a.q;
                (*group).d[index] = a.d;
                (*group).sums[index] = a.sum;
                (*group).offsets[index] = a.offset;
            }
        }
    }

    #[inline(always)]
    unsafe fn tables() {}

    #[inline(always)]
    unsafe fn terms(blocks: &[B], a: &Sixteen, _tables: &(), out: *mut f32) {
        let blocks: &[B; SIXTEEN] = blocks.try_into().expect("sixteen blocks");
        // SAFETY: the caller has the instructions and room for the terms; loads are of whole arrays.
        unsafe {
            let mut x = [_mm512_setzero_si512(); 8];
            for (i, x) in x.iter_mut().enumerate() {
                let two = B::two(&blocks[FIRST[i]], &blocks[FIRST[i] + 4]);
                *x = _mm512_dpbusd_epi32(*x, two, _mm512_loadu_si512(a.q[i].as_ptr().cast()));
            }
            let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
            let (low, high) = (quarters([x0, x1, x2, x3]), quarters([x4, x5, x6, x7]));
            let even = _mm512_shuffle_i32x4::<0x88>(low, high);
            let mut sums = _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0xdd>(low, high));
            if B::OFFSET != 0 {
                // They are -128 times the sum of the activations.
                let down = _mm_cvtsi32_si128((128 / B::OFFSET).ilog2() as i32);
                let offsets = _mm512_sra_epi32(_mm512_loadu_si512(a.offsets.as_ptr().cast()), down);
                sums = _mm512_add_epi32(sums, offsets);
            }
            let scales = _mm512_mul_ps(B::scales(blocks), _mm512_loadu_ps(a.d.as_ptr()));
            let products = _mm512_mul_ps(scales, _mm512_cvtepi32_ps(sums));
            if B::HAS_MINS {
                let mins = _mm512_mul_ps(B::mins(blocks), _mm512_loadu_ps(a.sums.as_ptr()));
                let in_turn = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                let eight = _mm512_set1_epi32(8);
                _mm512_storeu_ps(out, _mm512_permutex2var_ps(products, in_turn, mins));
                let later = _mm512_permutex2var_ps(products, _mm512_add_epi32(in_turn, eight), mins);
                _mm512_storeu_ps(out.add(SIXTEEN), later);
            } else {
                _mm512_storeu_ps(out, products);
            }
        }
    }
}

/// Sixteen f16 numbers.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn widen16(at: impl Fn(usize) -> u16) -> __m512 {
    let mut bits = [0u16; SIXTEEN];
    for (i, bits) in bits.iter_mut().enumerate() {
        *bits = at(i);
    }
    // SAFETY: the caller's; the load is of the whole array.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bits.as_ptr().cast())) }
}

/// The nibbles of 16 bytes for each half, low ones first.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn nibbles(first: &[u8; 16], second: &[u8; 16]) -> __m512i {
    // SAFETY: the caller's; loads are of whole arrays.
    unsafe {
        let first = _mm512_broadcast_i32x4(_mm_loadu_si128(first.as_ptr().cast()));
        let both = _mm512_mask_broadcast_i32x4(first, 0xff00, _mm_loadu_si128(second.as_ptr().cast()));
        let shifted = _mm512_srlv_epi64(both, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
        _mm512_and_si512(shifted, _mm512_set1_epi8(15))
    }
}

/// With bit `j` as bit 4 of byte `j`.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn with_fifth(nibbles: __m512i, first: [u8; 4], second: [u8; 4]) -> __m512i {
    let bits = u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(second)) << 32;
    // SAFETY: the caller's.
    unsafe { _mm512_mask_add_epi8(nibbles, bits, nibbles, _mm512_set1_epi8(16)) }
}

/// Values of a table, plus 128.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn look_up(table: &[i8; 16], nibbles: __m512i) -> __m512i {
    // SAFETY: the caller's; the load is of the whole table.
    unsafe {
        let table = _mm_xor_si128(_mm_loadu_si128(table.as_ptr().cast()), _mm_set1_epi8(-128));
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles)
    }
}

macro_rules! narrow512 {
    ($($block:ident $offset:literal, $a:ident $b:ident => $two:expr $(, $min:ident)?;)*) => {$(
        impl DecodeNarrow512 for $block {
            const OFFSET: i32 = $offset;
            #[inline(always)]
            unsafe fn two($a: &Self, $b: &Self) -> __m512i {
                // SAFETY: the caller's; loads are of whole arrays.
                unsafe { $two }
            }
            #[inline(always)]
            unsafe fn scales(blocks: &[Self; SIXTEEN]) -> __m512 {
                // SAFETY: the caller's.
                unsafe { widen16(|i| blocks[i].d.to_bits()) }
            }
            $(
                const HAS_MINS: bool = true;
                #[inline(always)]
                unsafe fn mins(blocks: &[Self; SIXTEEN]) -> __m512 {
                    // SAFETY: the caller's.
                    unsafe { widen16(|i| blocks[i].$min.to_bits()) }
                }
            )?
        }
    )*};
}
narrow512! {
    BlockQ8_0 128, a b => {
        let first = _mm512_castsi256_si512(_mm256_loadu_si256(a.qs.as_ptr().cast()));
        let both = _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(b.qs.as_ptr().cast()));
        _mm512_xor_si512(both, _mm512_set1_epi8(-128))
    };
    BlockQ4_0 8, a b => nibbles(&a.qs, &b.qs);
    BlockQ4_1 0, a b => nibbles(&a.qs, &b.qs), m;
    BlockQ5_0 16, a b => with_fifth(nibbles(&a.qs, &b.qs), a.qh, b.qh);
    BlockQ5_1 0, a b => with_fifth(nibbles(&a.qs, &b.qs), a.qh, b.qh), m;
    BlockIQ4_NL 128, a b => look_up(&IQ4_VALUES, nibbles(&a.qs, &b.qs));
}

impl DecodeNarrow512 for BlockMXFP4 {
    const OFFSET: i32 = 128;
    #[inline(always)]
    unsafe fn two(a: &Self, b: &Self) -> __m512i {
        // SAFETY: the caller's.
        unsafe { look_up(&FP4_VALUES, nibbles(&a.qs, &b.qs)) }
    }
    #[inline(always)]
    unsafe fn scales(blocks: &[Self; SIXTEEN]) -> __m512 {
        let mut bytes = [0u8; SIXTEEN];
        for (byte, block) in bytes.iter_mut().zip(blocks) {
            *byte = block.e;
        }
        // SAFETY: the caller's; the load is of the whole array.
        unsafe {
            // As `quant::unpack::e8m0_half`: exponents one less, of which two are below what f32 has exponents for.
            let e = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
            let small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
            let bits = _mm512_mask_sllv_epi32(normal, small, _mm512_set1_epi32(0x0020_0000), e);
            _mm512_castsi512_ps(bits)
        }
    }
}
