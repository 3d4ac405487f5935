//! Panels: 32 rows of weights unpacked to bytes, as many values of each as the first-level cache has room for, once for all
//! rows of activations of a micro-batch.
//!
//! Four neighbouring values of each row lie side by side, so that a vector of 16 lanes is one load, meets the same four
//! activations, and needs no sum across lanes.

use super::super::prefetch;
use super::activations::scrambled;
use super::lanes::Layout;
use super::portable::{NARROWS, Narrows, UnpackNarrow, UnpackWide, Wide, narrow_count};
use super::{Form, NARROW, WIDE, blocks};
use quant::GgmlType;
use quant::unpack::Unpack;
use std::mem::offset_of;

/// Rows of weights in a panel.
pub const PANEL_ROWS: usize = VECTORS * LANES;
/// Rows in a vector.
pub const LANES: usize = 16;
/// Vectors of rows: both meet activations that were loaded once.
pub const VECTORS: usize = 2;
/// Values of a row that a panel should hold: with their scales and some rows of activations they fit the first-level cache.
pub const PANEL_VALUES: usize = 512;

/// One value for each row of a vector.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub struct Lane16<T>(pub [T; LANES]);

// SAFETY: an array without padding.
unsafe impl bytemuck::Zeroable for Lane16<f32> {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Lane16<f32> {}

/// One value for each row of a panel.
pub type Lanes32<T> = [Lane16<T>; VECTORS];

/// Blocks of some rows of packed weights.
#[derive(Clone, Copy)]
pub struct Stripe<'a> {
    /// From the first of the rows on.
    pub bytes: &'a [u8],
    pub row_bytes: usize,
    /// At most [`PANEL_ROWS`].
    pub rows: usize,
    /// Blocks of the file from here on.
    pub first: usize,
    pub blocks: usize,
}

impl Stripe<'_> {
    /// Asks for blocks of `block_bytes` that will be wanted: of each row there are too few for the CPU's own prefetcher.
    pub fn prefetch(&self, block_bytes: usize) {
        for row in 0..self.rows {
            let start = self.bytes.as_ptr().wrapping_add(row * self.row_bytes + self.first * block_bytes);
            prefetch(start, self.blocks * block_bytes);
        }
    }

    pub(super) fn row<B: Unpack>(&self, row: usize) -> &[B] {
        let start = row * self.row_bytes + self.first * size_of::<B>();
        blocks(&self.bytes[start..][..self.blocks * size_of::<B>()])
    }
}

/// Unpacked rows. Kept from use to use, so that filling allocates nothing.
pub struct Panel {
    pub(super) ty: GgmlType,
    pub(super) form: Form,
    pub(super) blocks: usize,
    /// Narrow blocks that meet the same activations.
    pub(super) shared: usize,
    /// Wide: groups in a block.
    pub(super) groups: usize,
    pub(super) has_mins: bool,
    /// Four bytes of each row, or eight of each row in two ([`Panel::pair`]), or two words of 16 bits; a multiple of 16.
    pub(super) q: Vec<Lanes32<u32>>,
    /// i32 for each group
    pub(super) scales: Vec<Lanes32<u32>>,
    /// i16 for two groups each, the first in the low half
    pub(super) mins: Vec<Lanes32<u32>>,
    pub(super) d: Vec<Lanes32<f32>>,
    pub(super) dmin: Vec<Lanes32<f32>>,
}

impl Default for Panel {
    fn default() -> Panel {
        let (q, scales, mins, d, dmin) = Default::default();
        let (ty, form) = (GgmlType::Q4_K, Form::Wide);
        Panel { ty, form, blocks: 0, shared: 1, groups: 0, has_mins: false, q, scales, mins, d, dmin }
    }
}

/// The 64 bytes of each of 16 rows that begin at `rows`, `stride` apart, as 16 vectors: lane `r` of `out[i]` becomes word `i`
/// of row `r`, with the bits of `flip` changed.
///
/// # Safety
/// The CPU has the instructions of `V`; the bytes can be read.
#[inline(always)]
pub(super) unsafe fn turn<V: Layout>(
    rows: *const u8,
    stride: usize,
    flip: u32,
    out: &mut [Lanes32<u32>],
    vector: usize,
) {
    let out: &mut [Lanes32<u32>; 16] = out.try_into().expect("sixteen");
    // SAFETY: the caller's.
    unsafe { V::turn(rows, stride, flip, out, vector) }
}

impl Panel {
    /// Makes room for blocks of `B` with `bytes` for each value.
    pub(super) fn shape<B: Unpack>(&mut self, form: Form, blocks: usize, shared: usize, groups: usize, bytes: usize) {
        let has_mins = B::HAS_MINS;
        (self.ty, self.form, self.blocks, self.shared) = (B::TYPE, form, blocks, shared);
        (self.groups, self.has_mins) = (groups, has_mins);
        let quads = bytes * if form == Form::Wide { WIDE / 4 } else { NARROW / 4 };
        // Only the length changes: rows that are missing keep old values, whose products nobody reads.
        self.q.resize((blocks * quads).next_multiple_of(16), [Lane16([0; LANES]); VECTORS]);
        self.d.resize(blocks, [Lane16([0.0; LANES]); VECTORS]);
        self.scales.resize(blocks * groups, [Lane16([0; LANES]); VECTORS]);
        self.mins.resize(if has_mins { blocks * groups / 2 } else { 0 }, [Lane16([0; LANES]); VECTORS]);
        self.dmin.resize(if has_mins { blocks } else { 0 }, [Lane16([0.0; LANES]); VECTORS]);
    }

    /// What makes signed weights what the products of `V` take.
    fn flip<V: Layout>(&self) -> u32 {
        if V::OFFSET && !self.has_mins { 0x8080_8080 } else { 0 }
    }

    /// Fills the panel with rows of a wide type.
    ///
    /// # Safety
    /// The CPU has the instructions of `V` and `U`.
    #[inline(always)]
    pub unsafe fn fill_wide<V: Layout, B: Unpack, U: UnpackWide<B>>(&mut self, stripe: &Stripe<'_>) {
        let groups = WIDE / B::GROUP;
        assert!((1..=PANEL_ROWS).contains(&stripe.rows));
        self.shape::<B>(Form::Wide, stripe.blocks, 1, groups, 1);
        let flip = self.flip::<V>();
        let mut staged = [const { Wide::new() }; LANES];
        let mut turned = [[Lane16([0; LANES]); VECTORS]; 16];
        // (Indices: iterators are not always inlined into something as long as this.)
        for vector in 0..stripe.rows.div_ceil(LANES) {
            let first_row = vector * LANES;
            let rows = LANES.min(stripe.rows - first_row);
            for index in 0..stripe.blocks {
                for lane in 0..rows {
                    let w = &mut staged[lane];
                    // SAFETY: the caller's.
                    unsafe { U::wide(&stripe.row::<B>(first_row + lane)[index], w) };
                    self.d[index][vector].0[lane] = w.d;
                    if B::HAS_MINS {
                        self.dmin[index][vector].0[lane] = w.dmin;
                    }
                }
                let q = &mut self.q[index * (WIDE / 4)..][..WIDE / 4];
                // SAFETY: the caller's; rows are 64 bytes inside a `Wide`.
                unsafe {
                    for c in 0..WIDE / 64 {
                        let out = &mut q[16 * c..][..16];
                        turn::<V>(staged[0].q.as_ptr().add(64 * c).cast(), size_of::<Wide>(), flip, out, vector);
                    }
                    let rows = staged.as_ptr().cast::<u8>().add(offset_of!(Wide, scales));
                    turn::<V>(rows, size_of::<Wide>(), 0, &mut turned, vector);
                }
                // Pairs of scales, then of mins.
                for g in 0..groups {
                    let place = scrambled(g * 16 / groups);
                    let pairs = &turned[place / 2][vector].0;
                    let out = &mut self.scales[index * groups + g][vector].0;
                    for lane in 0..LANES {
                        let [even, odd] = [i32::from(pairs[lane] as i16), (pairs[lane] as i32) >> 16];
                        out[lane] = if place % 2 == 0 { even } else { odd } as u32;
                    }
                }
                if B::HAS_MINS {
                    // Groups of 32 meet sums in their order; groups of 16 meet sums in scrambled order.
                    for pair in 0..groups / 2 {
                        self.mins[index * groups / 2 + pair][vector] = turned[8 + pair][vector];
                    }
                }
            }
        }
    }

    /// Fills the panel with rows of a narrow type.
    ///
    /// # Safety
    /// The CPU has the instructions of `V` and `U`.
    #[inline(always)]
    pub unsafe fn fill_narrow<V: Layout, B: Unpack, U: UnpackNarrow<B>>(&mut self, stripe: &Stripe<'_>) {
        let (narrow, shared) = narrow_count::<B>();
        assert!((1..=PANEL_ROWS).contains(&stripe.rows));
        self.shape::<B>(Form::Narrow, stripe.blocks * narrow, shared, 0, 1);
        let flip = self.flip::<V>();
        let at_once = NARROWS / narrow;
        let mut staged = [const { Narrows::new() }; LANES];
        for vector in 0..stripe.rows.div_ceil(LANES) {
            let first_row = vector * LANES;
            let rows = LANES.min(stripe.rows - first_row);
            let mut first = 0;
            while first < stripe.blocks {
                let some = at_once.min(stripe.blocks - first);
                let count = some * narrow;
                for lane in 0..rows {
                    let (w, row) = (&mut staged[lane], stripe.row::<B>(first_row + lane));
                    for i in 0..some {
                        // SAFETY: the caller's.
                        unsafe { U::narrow(&row[first + i], i * narrow, w) };
                    }
                    for i in 0..count {
                        self.d[first * narrow + i][vector].0[lane] = w.d[i];
                        if B::HAS_MINS {
                            self.dmin[first * narrow + i][vector].0[lane] = w.dmin[i];
                        }
                    }
                }
                // Two narrow blocks are turned together.
                for pair in 0..count.div_ceil(2) {
                    let out = &mut self.q[first * narrow * (NARROW / 4) + 16 * pair..][..16];
                    // SAFETY: the caller's; rows are 64 bytes inside `Narrows`.
                    unsafe {
                        let rows = staged[0].q.as_ptr().add(2 * pair).cast();
                        turn::<V>(rows, size_of::<Narrows>(), flip, out, vector);
                    }
                }
                first += at_once;
            }
        }
    }

    /// Puts the bytes of two quads of a row side by side, in place.
    #[cfg(target_arch = "aarch64")]
    pub fn pair(&mut self) {
        for [even, odd] in self.q.as_chunks_mut::<2>().0 {
            for (even, odd) in even.iter_mut().zip(odd) {
                let (a, b) = (even.0, odd.0);
                for (i, (a, b)) in a.into_iter().zip(b).enumerate() {
                    let out = if i < LANES / 2 { &mut even.0 } else { &mut odd.0 };
                    let at = 2 * i % LANES;
                    (out[at], out[at + 1]) = (a, b);
                }
            }
        }
    }
}
