//! Scalar twins: the definition in [`super`], value by value.

use super::activations::{NarrowBlock, Row, WideBlock, scrambled};
use super::{NARROW, ROWS, WIDE, blocks, for_narrow, for_wide};
use quant::GgmlType;
use quant::unpack::{Unpack, Unpacked};

/// A wide block of weights as integers; groups in the order of [`scrambled`].
#[repr(C, align(64))]
pub struct Wide {
    pub q: [i8; WIDE],
    pub scales: [i16; 16],
    pub mins: [i16; 16],
    pub d: f32,
    pub dmin: f32,
}

impl Wide {
    pub const fn new() -> Wide {
        Wide { q: [0; WIDE], scales: [0; 16], mins: [0; 16], d: 0.0, dmin: 0.0 }
    }

    #[inline(always)]
    pub fn unpack<B: Unpack>(block: &B, wide: &mut Wide) {
        let mut unpacked = Unpacked::new();
        block.unpack(&mut unpacked);
        (wide.q, wide.d, wide.dmin) = (unpacked.q, unpacked.d, unpacked.dmin);
        for g in 0..16 {
            // Group scales of all wide types have at most 8 bits.
            wide.scales[scrambled(g)] = unpacked.scales[16 * g / B::GROUP] as i16;
            wide.mins[scrambled(g)] = unpacked.mins[16 * g / B::GROUP] as i16;
        }
    }
}

/// Narrow blocks of weights.
#[repr(C, align(64))]
pub struct Narrows {
    pub q: [[i8; NARROW]; NARROWS],
    pub d: [f32; NARROWS],
    pub dmin: [f32; NARROWS],
}

/// As many as a block of any type has.
pub const NARROWS: usize = 4;

impl Narrows {
    pub const fn new() -> Narrows {
        Narrows { q: [[0; NARROW]; NARROWS], d: [0.0; NARROWS], dmin: [0.0; NARROWS] }
    }
}

/// How many narrow blocks a block of the file makes, and how many of them meet the same activations: one, except where
/// each 16 values have a float scale of their own. Those make two blocks, in each of which the other half is zero.
pub const fn narrow_count<B: Unpack>() -> (usize, usize) {
    let shared = NARROW / if B::GROUP < NARROW { B::GROUP } else { NARROW };
    let count = B::TYPE.block_size() / NARROW * shared;
    assert!(NARROWS % count == 0);
    (count, shared)
}

/// Unpacks the narrow blocks of a block as those from `at` on.
#[inline(always)]
pub fn unpack_narrow<B: Unpack>(block: &B, at: usize, out: &mut Narrows) {
    let (count, shared) = narrow_count::<B>();
    let mut unpacked = Unpacked::new();
    block.unpack(&mut unpacked);
    let dmin = if B::HAS_MINS { unpacked.dmin * unpacked.mins[0] as f32 } else { 0.0 };
    for index in 0..count {
        let mut q = [0; NARROW];
        let (start, len) = (index % shared * (NARROW / shared), NARROW / shared);
        q[start..start + len].copy_from_slice(&unpacked.q[index / shared * NARROW + start..][..len]);
        let group = if shared > 1 { index } else { index * NARROW / B::GROUP };
        (out.q[at + index], out.dmin[at + index]) = (q, dmin);
        out.d[at + index] = unpacked.d * unpacked.scales[group] as f32;
    }
}

/// How blocks of a type are unpacked for panels. (A trait, because closures around instructions are not always inlined.)
pub trait UnpackWide<B> {
    /// # Safety
    /// The CPU has the instructions of the implementation.
    unsafe fn wide(block: &B, out: &mut Wide);
}

/// The same of narrow types.
pub trait UnpackNarrow<B> {
    /// Writes narrow blocks from `at` on.
    ///
    /// # Safety
    /// The CPU has the instructions of the implementation.
    unsafe fn narrow(block: &B, at: usize, out: &mut Narrows);
}

/// Unpacks as the scalar code does.
pub struct Plain;

impl<B: Unpack> UnpackWide<B> for Plain {
    #[inline(always)]
    unsafe fn wide(block: &B, out: &mut Wide) {
        Wide::unpack(block, out);
    }
}

impl<B: Unpack> UnpackNarrow<B> for Plain {
    #[inline(always)]
    unsafe fn narrow(block: &B, at: usize, out: &mut Narrows) {
        unpack_narrow(block, at, out);
    }
}

/// The sum of 16 products.
fn dot16(w: &[i8], a: &[i8]) -> i32 {
    w.iter().zip(a).map(|(w, a)| i32::from(*w) * i32::from(*a)).sum()
}

fn wide_row<B: Unpack>(row: &[B], activation: &[WideBlock]) -> f32 {
    let mut sum = 0f32;
    let mut w = Wide::new();
    for (block, a) in row.iter().zip(activation) {
        Wide::unpack(block, &mut w);
        let (mut products, mut offsets) = (0i32, 0i32);
        for (g, (wq, aq)) in w.q.chunks_exact(16).zip(a.q.chunks_exact(16)).enumerate() {
            let g = scrambled(g);
            products += i32::from(w.scales[g]) * dot16(wq, aq);
            offsets += i32::from(w.mins[g]) * i32::from(a.sums[g]);
        }
        sum += (w.d * a.d) * products as f32;
        if B::HAS_MINS {
            sum -= (w.dmin * a.d) * offsets as f32;
        }
    }
    sum
}

fn narrow_row<B: Unpack>(row: &[B], activation: &[NarrowBlock]) -> f32 {
    let (count, shared) = narrow_count::<B>();
    let mut sum = 0f32;
    let mut w = Narrows::new();
    for (block, a) in row.iter().zip(activation.chunks_exact(count / shared)) {
        unpack_narrow(block, 0, &mut w);
        for index in 0..count {
            let a = &a[index / shared];
            let product = dot16(&w.q[index][..16], &a.q[..16]) + dot16(&w.q[index][16..], &a.q[16..]);
            sum += (w.d[index] * a.d) * product as f32;
            if B::HAS_MINS {
                sum -= w.dmin[index] * a.sum;
            }
        }
    }
    sum
}

pub fn dot_rows(ty: GgmlType, rows: &[u8], count: usize, activation: Row<'_>, out: &mut [f32; ROWS]) {
    let rows = rows.chunks_exact(rows.len() / count);
    for (row, out) in rows.zip(out) {
        *out = match activation {
            Row::Wide(a) => for_wide!(ty, B => wide_row(checked::<B>(row, a.len()), a), _ => unreachable(ty)),
            Row::Narrow(a) => {
                for_narrow!(ty, B => narrow_row(checked::<B>(row, a.len() * NARROW / B::TYPE.block_size()), a), _ => unreachable(ty))
            }
        };
    }
}

/// A row of exactly `len` blocks.
fn checked<B: Unpack>(row: &[u8], len: usize) -> &[B] {
    let row = blocks::<B>(row);
    assert_eq!(row.len(), len, "blocks of a row");
    row
}

fn unreachable(ty: GgmlType) -> f32 {
    panic!("{ty} does not meet these activations")
}

use quant::blocks::Block as _;
