//! Wide blocks for AVX-512 VNNI, four at a time.

use super::super::WIDE;
use super::super::activations::{WideBlock, scrambled};
use super::decode::{SuperScales, widen4};
use super::rows512::{Kernel, quarters};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Wide blocks taken together.
pub const FOUR: usize = 4;

/// Groups of 16 values as they lie in the row.
pub const IN_ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Activations of four wide blocks.
#[repr(C, align(64))]
pub struct Four {
    /// Groups of 16 of each block, in the order of the type.
    pub q: [[[i8; 16]; 16]; FOUR],
    /// Sums of the first eight groups of each block, and of the last eight.
    pub sums: [[[i16; 8]; FOUR]; 2],
    /// Sums of groups of 32.
    pub sums32: [[i16; 8]; FOUR],
    d: [f32; FOUR],
    /// The same twice each, the second of two less than 0.
    d_and_minus: [[f32; 2]; FOUR],
}

/// A wide block that can be taken into registers of 64 values. Value `j` is `(q[j] - OFFSET) * d * scale - dmin * min`.
pub trait DecodeWide512: SuperScales {
    /// Which groups of 16 values registers hold, one after the other.
    const ORDER: [u8; 16] = IN_ORDER;
    /// What `q` are too large by.
    const OFFSET: i32 = 0;
    /// What is loaded once for many rows.
    type Tables: Copy;
    /// # Safety
    /// AVX-512 F.
    unsafe fn tables() -> Self::Tables;
    /// Products, the lanes of which together are each block's; and in quarter `i` the lanes that together are the mins of
    /// block `i` times sums of activations, or the scales where there is an offset.
    ///
    /// # Safety
    /// AVX2, AVX-512 F, BW, VL, VNNI.
    unsafe fn four(blocks: &[Self; FOUR], a: &Four, tables: &Self::Tables) -> ([__m512i; FOUR], __m512i);
}

/// The kernel of a type.
pub struct Wide512<B>(PhantomData<B>);

// SAFETY: every field of the group is written; one or two values are written for each of four blocks.
unsafe impl<B: DecodeWide512> Kernel for Wide512<B> {
    type Block = B;
    type Activation = WideBlock;
    type Group = Four;
    type Tables = B::Tables;
    const AT_ONCE: usize = FOUR;
    const TERMS: usize = if B::HAS_MINS { 2 } else { 1 };

    #[inline(always)]
    unsafe fn prepare(activations: &[WideBlock], group: *mut Four) {
        static MISSING: WideBlock =
            WideBlock { q: [0; WIDE], offsets: [0; 16], offsets32: [0; 8], sums: [0; 16], sums32: [0; 8], d: 0.0 };
        for index in 0..FOUR {
            let a = activations.get(index).unwrap_or(&MISSING);
            let groups = a.q.as_chunks::<16>().0;
            // SAFETY: the caller has a group that may be written; indices are inside its arrays.
            unsafe {
                for (to, from) in B::ORDER.iter().enumerate() {
                    (*group).q[index][to] = groups[usize::from(*from)];
                }
                for g in 0..16 {
                    (*group).sums[g / 8][index][g % 8] = a.sums[scrambled(g)];
                }
                (*group).sums32[index] = a.sums32;
                (*group).d[index] = a.d;
                (*group).d_and_minus[index] = [a.d, -a.d];
            }
        }
    }

    #[inline(always)]
    unsafe fn tables() -> B::Tables {
        // SAFETY: passed on.
        unsafe { B::tables() }
    }

    #[inline(always)]
    unsafe fn terms(blocks: &[B], a: &Four, tables: &B::Tables, out: *mut f32) {
        let blocks: &[B; FOUR] = blocks.try_into().expect("four blocks");
        // SAFETY: the caller has the instructions and room for the terms; loads are of whole arrays.
        unsafe {
            let (products, sums) = B::four(blocks, a, tables);
            let products = quarters(products);
            let products = _mm256_add_epi32(_mm512_castsi512_si256(products), _mm512_extracti64x4_epi64::<1>(products));
            let products = _mm_add_epi32(_mm256_castsi256_si128(products), _mm256_extracti128_si256::<1>(products));
            if !B::HAS_MINS {
                let products = match B::OFFSET {
                    0 => products,
                    offset => {
                        let sums = _mm512_permutexvar_epi32(
                            _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12),
                            added(sums),
                        );
                        let sums = _mm512_castsi512_si128(sums);
                        _mm_sub_epi32(products, _mm_mullo_epi32(sums, _mm_set1_epi32(offset)))
                    }
                };
                let d = _mm_mul_ps(
                    widen4([blocks[0].d(), blocks[1].d(), blocks[2].d(), blocks[3].d()]),
                    _mm_set1_ps(B::FACTOR),
                );
                let d = _mm_mul_ps(d, _mm_loadu_ps(a.d.as_ptr()));
                _mm_storeu_ps(out, _mm_mul_ps(d, _mm_cvtepi32_ps(products)));
                return;
            }
            // Products and sums in turn, as scales are.
            let in_turn = _mm512_setr_epi32(0, 16, 1, 20, 2, 24, 3, 28, 0, 16, 1, 20, 2, 24, 3, 28);
            let products = _mm512_zextsi128_si512(products);
            let both = _mm512_castsi512_si256(_mm512_permutex2var_epi32(products, in_turn, added(sums)));
            let mut d = [[0u16; 2]; FOUR];
            for (d, block) in d.iter_mut().zip(blocks) {
                *d = [block.d(), block.dmin()];
            }
            let d = _mm256_cvtph_ps(_mm_loadu_si128(d.as_ptr().cast()));
            let d = _mm256_mul_ps(d, _mm256_loadu_ps(a.d_and_minus.as_ptr().cast()));
            _mm256_storeu_ps(out, _mm256_mul_ps(d, _mm256_cvtepi32_ps(both)));
        }
    }
}

/// The lanes of each quarter added, the sum in all of them.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn added(x: __m512i) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let x = _mm512_add_epi32(x, _mm512_shuffle_epi32::<0xb1>(x));
        _mm512_add_epi32(x, _mm512_shuffle_epi32::<0x4e>(x))
    }
}
