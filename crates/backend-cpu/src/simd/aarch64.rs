//! NEON, which every AArch64 has. What compilers vectorise well is left to them.

use super::cells::Cells;
use super::portable;
use super::tiles::{self, Product, Vector};
use std::arch::aarch64::*;
use std::arch::asm;

/// The lower four f16 as f32. Its intrinsic is younger than the oldest compiler that is supported.
#[inline(always)]
pub fn widen_low(x: uint16x8_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: an instruction of every AArch64, on registers alone.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The upper four.
#[inline(always)]
fn widen_high(x: uint16x8_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: an instruction of every AArch64, on registers alone.
    unsafe {
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) out, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

pub fn widen_f16(x: &[u16], out: &mut [f32]) {
    let (octets, rest) = x.as_chunks::<8>();
    let (wide, last) = out.split_at_mut(8 * octets.len());
    for (octet, out) in octets.iter().zip(wide.as_chunks_mut::<8>().0) {
        // SAFETY: NEON is part of AArch64; loads and stores are of whole arrays.
        unsafe {
            let narrow = vld1q_u16(octet.as_ptr());
            vst1q_f32(out.as_mut_ptr(), widen_low(narrow));
            vst1q_f32(out.as_mut_ptr().add(4), widen_high(narrow));
        }
    }
    portable::widen_f16(rest, last);
}

/// Sum of products; the lengths are equal.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    // SAFETY: NEON is part of AArch64; loads are inside the arrays.
    let mut total = unsafe {
        let mut sums = [vdupq_n_f32(0.0); 4];
        for (a, b) in a.iter().zip(b) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum = vfmaq_f32(*sum, vld1q_f32(a.as_ptr().add(4 * lane)), vld1q_f32(b.as_ptr().add(4 * lane)));
            }
        }
        vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])))
    };
    for (a, b) in a_rest.iter().zip(b_rest) {
        total += a * b;
    }
    total
}

// SAFETY: NEON is part of AArch64.
unsafe impl Vector for float32x4_t {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, self) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn widen_f16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { widen_low(vcombine_u16(vld1_u16(from), vdup_n_u16(0))) }
    }
    #[inline(always)]
    unsafe fn widen_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }
    #[inline(always)]
    unsafe fn integers(from: *const i8) -> Self {
        // SAFETY: the caller's promise; four bytes are read.
        unsafe {
            let bytes = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }
    #[inline(always)]
    unsafe fn nibbles_less_8(from: *const u8, shift: u32) -> Self {
        // SAFETY: the caller's promise; four bytes are read.
        unsafe {
            let bytes = vdup_n_u32(from.cast::<u32>().read_unaligned() >> shift & 0x0f0f_0f0f);
            let integers = vsub_s8(vreinterpret_s8_u32(bytes), vdup_n_s8(8));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(integers))))
        }
    }
    #[inline(always)]
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { widen_low(vdupq_n_u16(from.read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vmulq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vfmaq_f32(self, x, y) }
    }
    #[inline(always)]
    unsafe fn sums(x: [Self; 4]) -> [f32; 4] {
        let mut out = [0f32; 4];
        // SAFETY: the caller's promise; the store is of the whole array.
        unsafe { vst1q_f32(out.as_mut_ptr(), vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3]))) };
        out
    }
}

/// # Safety
/// [`Product::fits`].
pub unsafe fn product(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::product::<float32x4_t, 4>(p, a, b, c) }
}

/// # Safety
/// [`Product::fits_dots`].
pub unsafe fn dots(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::dots::<float32x4_t, 4>(p, a, b, c) }
}
