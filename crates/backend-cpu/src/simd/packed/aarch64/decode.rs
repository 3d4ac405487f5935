//! Wide blocks of weights in registers.

use super::super::portable::Wide;
use super::super::super_scales::SuperScales;
use super::widen;
use quant::blocks::*;
use quant::unpack::IQ4_VALUES;
use std::arch::aarch64::*;

/// A wide block: value `j` is `(q[j] - OFFSET) * d * scale - dmin * min`, groups in scrambled order.
pub struct WideRegisters {
    pub q: [int8x16_t; 16],
    pub scales: [int16x8_t; 2],
    pub mins: [int16x8_t; 2],
}

/// A wide block that can be taken into registers.
pub trait DecodeWide: SuperScales {
    /// What `q` are too large by.
    const OFFSET: u8 = 0;
    fn registers(&self) -> WideRegisters;
}

impl WideRegisters {
    /// The block in memory, as the portable kernel unpacks it.
    #[inline(always)]
    pub fn store<B: DecodeWide>(&self, block: &B, wide: &mut Wide) {
        let [d, dmin, ..] = widen([block.d(), block.dmin(), 0, 0]);
        (wide.d, wide.dmin) = (d * B::FACTOR, dmin);
        // SAFETY: NEON is part of AArch64; stores are inside the arrays.
        unsafe {
            for (q, out) in self.q.iter().zip(wide.q.as_chunks_mut::<16>().0) {
                vst1q_s8(out.as_mut_ptr(), vsubq_s8(*q, vdupq_n_s8(B::OFFSET as i8)));
            }
            for i in 0..2 {
                vst1q_s16(wide.scales.as_mut_ptr().add(8 * i), self.scales[i]);
                vst1q_s16(wide.mins.as_mut_ptr().add(8 * i), self.mins[i]);
            }
        }
    }
}

/// # Safety
/// 16 bytes from `start` on are inside `bytes`.
#[inline(always)]
unsafe fn load(bytes: &[u8], start: usize) -> uint8x16_t {
    debug_assert!(start + 16 <= bytes.len());
    // SAFETY: the caller's.
    unsafe { vld1q_u8(bytes.as_ptr().add(start)) }
}

/// Every byte shifted left, or right by the negative, and of it some bits.
#[inline(always)]
fn bits(x: uint8x16_t, left: i8, mask: u8) -> uint8x16_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vandq_u8(vshlq_u8(x, vdupq_n_s8(left)), vdupq_n_u8(mask)) }
}

#[inline(always)]
fn or(x: uint8x16_t, y: uint8x16_t) -> int8x16_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vreinterpretq_s8_u8(vorrq_u8(x, y)) }
}

#[inline(always)]
fn zeros() -> [int8x16_t; 16] {
    // SAFETY: NEON is part of AArch64.
    unsafe { [vdupq_n_s8(0); 16] }
}

/// Nibbles of 128 bytes: 32 bytes for two groups of 32, the first in the low nibbles; `high` gives more bits of each 16.
#[inline(always)]
fn four_bits(qs: &[u8; 128], high: impl Fn(usize) -> uint8x16_t) -> [int8x16_t; 16] {
    let mut q = zeros();
    for j in 0..4 {
        for part in 0..2 {
            // SAFETY: inside the array.
            let bytes = unsafe { load(qs, 32 * j + 16 * part) };
            let (low, up) = (4 * j + part, 4 * j + 2 + part);
            q[low] = or(bits(bytes, 0, 15), high(low));
            q[up] = or(bits(bytes, -4, 15), high(up));
        }
    }
    q
}

/// Pairs of bits of 64 bytes: 32 bytes for four groups of 32; `high` gives more bits of each 16.
#[inline(always)]
fn two_bits(qs: &[u8; 64], high: impl Fn(usize) -> uint8x16_t) -> [int8x16_t; 16] {
    let mut q = zeros();
    for half in 0..2 {
        for part in 0..2 {
            // SAFETY: inside the array.
            let bytes = unsafe { load(qs, 32 * half + 16 * part) };
            for k in 0..4 {
                let at = 8 * half + 2 * k + part;
                q[at] = or(bits(bytes, -2 * k as i8, 3), high(at));
            }
        }
    }
    q
}

#[inline(always)]
fn none(_: usize) -> uint8x16_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vdupq_n_u8(0) }
}

/// Bit `g` of 32 bytes, as bit `to` of the values of group `g`.
#[inline(always)]
fn one_bit(bytes: &[u8; 32], to: i8) -> impl Fn(usize) -> uint8x16_t {
    // SAFETY: inside the array.
    let bytes = unsafe { [load(bytes, 0), load(bytes, 16)] };
    move |at| bits(bytes[at % 2], to - (at / 2) as i8, 1 << to)
}

/// The 6-bit scales and mins of Q4_K and Q5_K: 8 groups of 32.
#[inline(always)]
fn scales_mins(packed: &[u8; 12]) -> (int16x8_t, int16x8_t) {
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let scales = [a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4];
    let mins = [b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4];
    // SAFETY: NEON is part of AArch64.
    let wide = |words: [u32; 2]| unsafe {
        vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(u64::from(words[0]) | u64::from(words[1]) << 32)))
    };
    (wide(scales), wide(mins))
}

/// The 8 scales of IQ4_XS.
#[inline(always)]
fn scales_iq4(block: &BlockIQ4_XS) -> int16x8_t {
    const LOW: [i16; 8] = [0, -4, 0, -4, 0, -4, 0, -4];
    const HIGH: [i16; 8] = [4, 2, 0, -2, -4, -6, -8, -10];
    // SAFETY: NEON is part of AArch64; loads are of whole arrays.
    unsafe {
        let low = vcreate_u8(u64::from(u32::from_le_bytes(block.scales_l)));
        let low = vandq_u16(vshlq_u16(vmovl_u8(vzip1_u8(low, low)), vld1q_s16(LOW.as_ptr())), vdupq_n_u16(15));
        // A pair of bits for each group, shifted to bits 4 and 5.
        let high = vandq_u16(vshlq_u16(vdupq_n_u16(block.scales_h), vld1q_s16(HIGH.as_ptr())), vdupq_n_u16(48));
        vsubq_s16(vreinterpretq_s16_u16(vorrq_u16(low, high)), vdupq_n_s16(32))
    }
}

/// The 16 scales of Q3_K, as `quant::unpack::unpack_scales_q3` unpacks them.
#[inline(always)]
fn scales_q3(packed: &[u8; 12]) -> int8x16_t {
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let quad = |low: u32, high: u32| low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4;
    let words = [quad(a, c), quad(b, c >> 2), quad(a >> 4, c >> 4), quad(b >> 4, c >> 6)];
    // SAFETY: NEON is part of AArch64; the load is of the whole array.
    unsafe { vsubq_s8(vreinterpretq_s8_u32(vld1q_u32(words.as_ptr())), vdupq_n_s8(32)) }
}

/// 16 bytes with even groups first, widened.
#[inline(always)]
fn scramble(bytes: int8x16_t) -> [int16x8_t; 2] {
    // SAFETY: NEON is part of AArch64.
    unsafe {
        let (even, odd) = (vuzp1q_s8(bytes, bytes), vuzp2q_s8(bytes, bytes));
        [vmovl_s8(vget_low_s8(even)), vmovl_s8(vget_low_s8(odd))]
    }
}

impl DecodeWide for BlockQ4_K {
    #[inline(always)]
    fn registers(&self) -> WideRegisters {
        let (scales, mins) = scales_mins(&self.scales);
        WideRegisters { q: four_bits(&self.qs, none), scales: [scales; 2], mins: [mins; 2] }
    }
}

impl DecodeWide for BlockQ5_K {
    #[inline(always)]
    fn registers(&self) -> WideRegisters {
        let (scales, mins) = scales_mins(&self.scales);
        WideRegisters { q: four_bits(&self.qs, one_bit(&self.qh, 4)), scales: [scales; 2], mins: [mins; 2] }
    }
}

impl DecodeWide for BlockQ6_K {
    const OFFSET: u8 = 32;
    #[inline(always)]
    fn registers(&self) -> WideRegisters {
        let mut q = zeros();
        for half in 0..2 {
            for part in 0..2 {
                // SAFETY: inside the arrays.
                let high = unsafe { load(&self.qh, 32 * half + 16 * part) };
                for i in 0..2 {
                    // SAFETY: inside the array.
                    let low = unsafe { load(&self.ql, 64 * half + 32 * i + 16 * part) };
                    let shift = 2 * i as i8;
                    q[8 * half + 2 * i + part] = or(bits(low, 0, 15), bits(high, 4 - shift, 48));
                    q[8 * half + 4 + 2 * i + part] = or(bits(low, -4, 15), bits(high, -shift, 48));
                }
            }
        }
        // SAFETY: NEON is part of AArch64; the load is of the whole array.
        let scales = scramble(unsafe { vld1q_s8(self.scales.as_ptr()) });
        WideRegisters { q, scales, mins: scales }
    }
}

impl DecodeWide for BlockQ2_K {
    #[inline(always)]
    fn registers(&self) -> WideRegisters {
        // SAFETY: the load is of the whole array; NEON is part of AArch64.
        let (scales, mins) = unsafe {
            let packed = load(&self.scales, 0);
            (vreinterpretq_s8_u8(bits(packed, 0, 15)), vreinterpretq_s8_u8(bits(packed, -4, 15)))
        };
        WideRegisters { q: two_bits(&self.qs, none), scales: scramble(scales), mins: scramble(mins) }
    }
}

impl DecodeWide for BlockQ3_K {
    const OFFSET: u8 = 4;
    #[inline(always)]
    fn registers(&self) -> WideRegisters {
        let scales = scramble(scales_q3(&self.scales));
        WideRegisters { q: two_bits(&self.qs, one_bit(&self.hmask, 2)), scales, mins: scales }
    }
}

impl DecodeWide for BlockIQ4_XS {
    #[inline(always)]
    fn registers(&self) -> WideRegisters {
        let mut q = zeros();
        for (g, q) in q.chunks_exact_mut(2).enumerate() {
            // SAFETY: inside the array.
            q.copy_from_slice(&look_up(&IQ4_VALUES, unsafe { load(&self.qs, 16 * g) }));
        }
        let scales = [scales_iq4(self); 2];
        WideRegisters { q, scales, mins: scales }
    }
}

/// Types that are unpacked by the scalar code.
macro_rules! wide_by_scalar {
    ($($block:ident),*) => {$(
        impl DecodeWide for $block {
            #[inline(always)]
            fn registers(&self) -> WideRegisters {
                let mut wide = Wide::new();
                Wide::unpack(self, &mut wide);
                let mut q = zeros();
                // SAFETY: NEON is part of AArch64; loads are inside the arrays.
                unsafe {
                    for (q, bytes) in q.iter_mut().zip(wide.q.as_chunks::<16>().0) {
                        *q = vld1q_s8(bytes.as_ptr());
                    }
                    let scales = [vld1q_s16(wide.scales.as_ptr()), vld1q_s16(wide.scales.as_ptr().add(8))];
                    WideRegisters { q, scales, mins: scales }
                }
            }
        }
    )*};
}
wide_by_scalar!(
    BlockIQ2_XXS,
    BlockIQ2_XS,
    BlockIQ2_S,
    BlockIQ3_XXS,
    BlockIQ3_S,
    BlockIQ1_S,
    BlockIQ1_M,
    BlockTQ1_0,
    BlockTQ2_0
);

/// Nibbles of 16 bytes, low ones first.
#[inline(always)]
pub fn nibbles(bytes: uint8x16_t) -> [uint8x16_t; 2] {
    [bits(bytes, 0, 15), bits(bytes, -4, 15)]
}

#[inline(always)]
pub fn look_up(table: &[i8; 16], bytes: uint8x16_t) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of AArch64; the load is of the whole table.
    unsafe {
        let table = vld1q_s8(table.as_ptr());
        let [low, high] = nibbles(bytes);
        [vqtbl1q_s8(table, low), vqtbl1q_s8(table, high)]
    }
}
