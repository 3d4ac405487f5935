//! Panels for registers of 256 bits: how they are filled.
//!
//! AVX2 multiplies unsigned bytes with signed ones into sums of 16 bits, which saturate. So weights of a small range are kept as
//! bytes with so much added that none is negative, and some of their products still fit 16 bits when they are added ([`Sums`]
//! says how many). Others are kept as words of 16 bits, times the scale of their group.
//!
//! [`Sums`]: super::sums256::Sums

use super::super::activations::scrambled;
use super::super::lanes::Layout;
use super::super::panel::{LANES, Lanes32, PANEL_ROWS, Panel, Stripe, turn};
use super::super::portable::{NARROWS, Narrows, Wide, narrow_count};
use super::super::{Form, NARROW, WIDE};
use super::decode::{DecodeWide, store};
use super::decode_narrow::DecodeNarrow;
use quant::GgmlType;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// The layout of panels for the products of `P`, 16 lanes in two registers.
pub struct Halves<P>(PhantomData<P>);

/// What is added to wide weights with AVX2, where they have no mins: none is beyond 32 either way.
pub const WIDE_PLUS: u8 = 32;
/// The same of narrow ones.
pub const NARROW_PLUS: u8 = 16;

/// Types whose weights have too many values for bytes with AVX2.
pub fn words(ty: GgmlType) -> bool {
    use GgmlType::*;
    matches!(ty, IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ4_XS | IQ4_NL | Q8_0)
}

// SAFETY: methods say what they need: AVX2.
unsafe impl<P: super::lanes::Products> Layout for Halves<P> {
    const OFFSET: bool = P::OFFSET;

    #[inline(always)]
    unsafe fn turn(rows: *const u8, stride: usize, flip: u32, out: &mut [Lanes32<u32>; 16], vector: usize) {
        // SAFETY: the caller has AVX2; rows have 64 bytes, and stores are of halves of arrays.
        unsafe {
            let flip = _mm256_set1_epi32(flip as i32);
            for half in 0..2 {
                for part in 0..4 {
                    let first = rows.add(8 * half * stride + 16 * part);
                    let columns = four_columns([0, 1, 2, 3, 4, 5, 6, 7].map(|i| first.add(i * stride).cast()));
                    for i in 0..4 {
                        let column = _mm256_xor_si256(_mm256_castps_si256(columns[i]), flip);
                        _mm256_storeu_si256(out[4 * part + i][vector].0.as_mut_ptr().add(8 * half).cast(), column);
                    }
                }
            }
        }
    }
}

/// The first four words of eight rows: a row in each lane.
///
/// # Safety
/// AVX2; the words can be read.
#[inline(always)]
pub unsafe fn four_columns(rows: [*const f32; 8]) -> [__m256; 4] {
    // SAFETY: the caller's.
    unsafe {
        let mut x = [_mm256_setzero_ps(); 4];
        for i in 0..4 {
            let low = _mm256_castps128_ps256(_mm_loadu_ps(rows[i]));
            x[i] = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(rows[i + 4]));
        }
        let ab = [_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1])].map(|x| _mm256_castps_pd(x));
        let cd = [_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3])].map(|x| _mm256_castps_pd(x));
        [
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab[0], cd[0])),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab[0], cd[0])),
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab[1], cd[1])),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab[1], cd[1])),
        ]
    }
}

/// Scales of groups, as i32, become two of 16 bits: they meet sums of pairs.
#[inline(always)]
pub fn double_scales(panel: &mut Panel) {
    for lanes in panel.scales.as_flattened_mut() {
        for scale in &mut lanes.0 {
            *scale = *scale & 0xffff | *scale << 16;
        }
    }
}

/// Fills the panel with words of a wide type: weights times the scales of their groups.
///
/// # Safety
/// AVX2 and F16C.
#[inline(always)]
pub unsafe fn fill_wide_words<B: DecodeWide>(panel: &mut Panel, stripe: &Stripe<'_>) {
    assert!((1..=PANEL_ROWS).contains(&stripe.rows) && !B::HAS_MINS);
    panel.shape::<B>(Form::Wide, stripe.blocks, 1, 0, 2);
    let (mut wide, mut words) = (Wide::new(), [[0i16; WIDE]; LANES]);
    for vector in 0..stripe.rows.div_ceil(LANES) {
        let first_row = vector * LANES;
        let rows = LANES.min(stripe.rows - first_row);
        for index in 0..stripe.blocks {
            for lane in 0..rows {
                let block = &stripe.row::<B>(first_row + lane)[index];
                // SAFETY: the caller's.
                unsafe { store(block, 0, &mut wide) };
                panel.d[index][vector].0[lane] = wide.d;
                for g in 0..16 {
                    let scale = wide.scales[scrambled(g)];
                    for i in 16 * g..16 * g + 16 {
                        words[lane][i] = i16::from(wide.q[i]) * scale;
                    }
                }
            }
            let out = &mut panel.q[index * (WIDE / 2)..][..WIDE / 2];
            for c in 0..WIDE / 32 {
                // SAFETY: the caller's; the bytes are inside a row of words.
                unsafe {
                    let rows = words.as_ptr().cast::<u8>().add(64 * c);
                    turn::<Halves<super::lanes::Avx2>>(
                        rows,
                        size_of_val(&words[0]),
                        0,
                        &mut out[16 * c..][..16],
                        vector,
                    );
                }
            }
        }
    }
}

/// Fills the panel with words of a narrow type.
///
/// # Safety
/// AVX2 and F16C.
#[inline(always)]
pub unsafe fn fill_narrow_words<B: DecodeNarrow>(panel: &mut Panel, stripe: &Stripe<'_>) {
    let (narrow, shared) = narrow_count::<B>();
    assert!((1..=PANEL_ROWS).contains(&stripe.rows) && narrow == 1 && !B::HAS_MINS);
    panel.shape::<B>(Form::Narrow, stripe.blocks, shared, 0, 2);
    let (mut narrows, mut words) = (Narrows::new(), [[[0i16; NARROW]; NARROWS]; LANES]);
    for vector in 0..stripe.rows.div_ceil(LANES) {
        let first_row = vector * LANES;
        let rows = LANES.min(stripe.rows - first_row);
        for first in (0..stripe.blocks).step_by(NARROWS) {
            let some = NARROWS.min(stripe.blocks - first);
            for lane in 0..rows {
                let row = &stripe.row::<B>(first_row + lane)[first..first + some];
                for i in 0..some {
                    // SAFETY: the caller's.
                    unsafe { row[i].store(i, 0, &mut narrows) };
                    panel.d[first + i][vector].0[lane] = narrows.d[i];
                    for j in 0..NARROW {
                        words[lane][i][j] = i16::from(narrows.q[i][j]);
                    }
                }
            }
            for i in 0..some {
                let out = &mut panel.q[(first + i) * (NARROW / 2)..][..NARROW / 2];
                // SAFETY: the caller's; the bytes are a block of words.
                unsafe {
                    let rows = words.as_ptr().cast::<u8>().add(64 * i);
                    turn::<Halves<super::lanes::Avx2>>(rows, size_of_val(&words[0]), 0, out, vector);
                }
            }
        }
    }
}
