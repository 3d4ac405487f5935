//! Panels: 16 rows of weights unpacked to bytes in cache, once, for all rows of activations of a micro-batch.
//!
//! Four neighbouring values of each row lie side by side, so that a vector of 16 lanes is one load, meets the same four
//! activations, and needs no sum across lanes.

use super::activations::{NarrowBlock, Row, WideBlock, scrambled};
use super::lanes::{Lanes, Portable};
use super::portable::{Narrow, Wide, narrow_count, unpack_narrow};
use super::{Form, NARROW, WIDE, blocks, for_narrow, for_wide};
use quant::GgmlType;
use quant::unpack::Unpack;

/// Rows of weights in a panel.
pub const PANEL_ROWS: usize = 16;

/// One value for each row.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Lane16<T>(pub [T; PANEL_ROWS]);

/// Unpacked rows. Kept from use to use, so that filling allocates nothing.
pub struct Panel {
    form: Form,
    blocks: usize,
    /// Narrow blocks that meet the same activations.
    shared: usize,
    /// Wide: groups in a block.
    groups: usize,
    has_mins: bool,
    /// Four bytes of each row, or eight of each row in two ([`Panel::pair`]).
    q: Vec<Lane16<u32>>,
    scales: Vec<Lane16<i32>>,
    mins: Vec<Lane16<[i16; 2]>>,
    d: Vec<Lane16<f32>>,
    dmin: Vec<Lane16<f32>>,
}

impl Default for Panel {
    fn default() -> Panel {
        let (q, scales, mins, d, dmin) = Default::default();
        Panel { form: Form::Wide, blocks: 0, shared: 1, groups: 0, has_mins: false, q, scales, mins, d, dmin }
    }
}

impl Panel {
    fn shape(&mut self, form: Form, blocks: usize, shared: usize, groups: usize, has_mins: bool) {
        (self.form, self.blocks, self.shared) = (form, blocks, shared);
        (self.groups, self.has_mins) = (groups, has_mins);
        let quads = if form == Form::Wide { WIDE / 4 } else { NARROW / 4 };
        // Only the length changes: rows that are missing keep old values, whose products nobody reads.
        self.q.resize(blocks * quads, Lane16([0; PANEL_ROWS]));
        self.d.resize(blocks, Lane16([0.0; PANEL_ROWS]));
        self.scales.resize(blocks * groups, Lane16([0; PANEL_ROWS]));
        self.mins.resize(if has_mins { blocks * groups / 2 } else { 0 }, Lane16([[0; 2]; PANEL_ROWS]));
        self.dmin.resize(if has_mins { blocks } else { 0 }, Lane16([0.0; PANEL_ROWS]));
    }

    #[inline(always)]
    fn put_wide(&mut self, row: usize, index: usize, w: &Wide, flip: u32) {
        let quads = &mut self.q[index * (WIDE / 4)..][..WIDE / 4];
        for (quad, q) in quads.iter_mut().zip(bytemuck::cast_slice::<i8, [u8; 4]>(&w.q)) {
            quad.0[row] = u32::from_le_bytes(*q) ^ flip;
        }
        self.d[index].0[row] = w.d;
        let groups = self.groups;
        for g in 0..groups {
            self.scales[index * groups + g].0[row] = i32::from(w.scales[scrambled(g * 16 / groups)]);
        }
        if self.has_mins {
            self.dmin[index].0[row] = w.dmin;
            // Groups of 32 meet sums in their order; groups of 16 meet sums in scrambled order.
            for pair in 0..groups / 2 {
                self.mins[index * groups / 2 + pair].0[row] = [w.mins[2 * pair], w.mins[2 * pair + 1]];
            }
        }
    }

    #[inline(always)]
    fn put_narrow(&mut self, row: usize, index: usize, w: &Narrow, flip: u32) {
        let quads = &mut self.q[index * (NARROW / 4)..][..NARROW / 4];
        for (quad, q) in quads.iter_mut().zip(bytemuck::cast_slice::<i8, [u8; 4]>(&w.q)) {
            quad.0[row] = u32::from_le_bytes(*q) ^ flip;
        }
        self.d[index].0[row] = w.d;
        if self.has_mins {
            self.dmin[index].0[row] = w.dmin;
        }
    }

    /// Fills the panel with rows of a wide type. `offset`: store signed weights plus 128.
    #[inline(always)]
    pub fn fill_wide<B: Unpack>(&mut self, rows: &[u8], count: usize, offset: bool, unpack: impl Fn(&B) -> Wide) {
        let rows = blocks::<B>(rows);
        let per_row = rows.len() / count;
        self.shape(Form::Wide, per_row, 1, WIDE / B::GROUP, B::HAS_MINS);
        let flip = if offset && !B::HAS_MINS { 0x8080_8080 } else { 0 };
        for (row, row_blocks) in rows.chunks_exact(per_row).enumerate() {
            for (index, block) in row_blocks.iter().enumerate() {
                self.put_wide(row, index, &unpack(block), flip);
            }
        }
    }

    /// Fills the panel with rows of a narrow type.
    #[inline(always)]
    pub fn fill_narrow<B: Unpack>(&mut self, rows: &[u8], count: usize, offset: bool) {
        let rows = blocks::<B>(rows);
        let per_row = rows.len() / count;
        let (narrow, shared) = narrow_count::<B>();
        self.shape(Form::Narrow, per_row * narrow, shared, 0, B::HAS_MINS);
        let flip = if offset && !B::HAS_MINS { 0x8080_8080 } else { 0 };
        for (row, row_blocks) in rows.chunks_exact(per_row).enumerate() {
            for (index, block) in row_blocks.iter().enumerate() {
                unpack_narrow(block, |i, w| self.put_narrow(row, index * narrow + i, w, flip));
            }
        }
    }

    /// Puts the bytes of two quads of a row side by side, in place.
    #[cfg(target_arch = "aarch64")]
    pub fn pair(&mut self) {
        for [even, odd] in self.q.as_chunks_mut::<2>().0 {
            let (a, b) = (even.0, odd.0);
            for (i, (a, b)) in a.into_iter().zip(b).enumerate() {
                let out = if i < PANEL_ROWS / 2 { &mut even.0 } else { &mut odd.0 };
                let at = 2 * i % PANEL_ROWS;
                (out[at], out[at + 1]) = (a, b);
            }
        }
    }

    /// Products with all rows of activations, `T` at a time.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`.
    #[inline(always)]
    pub unsafe fn dot<V: Lanes, const T: usize>(&self, activations: &[Row<'_>], out: &mut [[f32; PANEL_ROWS]]) {
        let whole = activations.len() / T * T;
        // SAFETY: passed on.
        unsafe {
            for start in (0..whole).step_by(T) {
                self.tile::<V, T>(&activations[start..][..T], &mut out[start..][..T]);
            }
            for index in whole..activations.len() {
                self.tile::<V, 1>(&activations[index..][..1], &mut out[index..][..1]);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Lanes, const T: usize>(&self, activations: &[Row<'_>], out: &mut [[f32; PANEL_ROWS]]) {
        // SAFETY: passed on.
        unsafe {
            let sums = match (self.form, self.groups, self.has_mins) {
                (Form::Wide, 8, false) => self.wide::<V, T, 8, false>(wide_rows(activations, self.blocks)),
                (Form::Wide, 8, true) => self.wide::<V, T, 8, true>(wide_rows(activations, self.blocks)),
                (Form::Wide, _, false) => self.wide::<V, T, 16, false>(wide_rows(activations, self.blocks)),
                (Form::Wide, _, true) => self.wide::<V, T, 16, true>(wide_rows(activations, self.blocks)),
                (Form::Narrow, _, false) => self.narrow::<V, T, false>(self.narrow_rows(activations)),
                (Form::Narrow, _, true) => self.narrow::<V, T, true>(self.narrow_rows(activations)),
            };
            for (sum, out) in sums.into_iter().zip(out) {
                V::store(sum, out);
            }
        }
    }

    #[inline(always)]
    unsafe fn wide<V: Lanes, const T: usize, const GROUPS: usize, const MINS: bool>(
        &self,
        rows: [&[WideBlock]; T],
    ) -> [V::F; T] {
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            let mut sums = [V::splat_f(0.0); T];
            let quads = self.q.chunks_exact(WIDE / 4).zip(self.scales.chunks_exact(GROUPS)).zip(&self.d);
            for (index, ((quads, scales), d)) in quads.enumerate() {
                let a: [&WideBlock; T] = rows.map(|row| &row[index]);
                let mut products = [V::splat(0); T];
                for (g, (quads, scales)) in quads.chunks_exact(WIDE / 4 / GROUPS).zip(scales).enumerate() {
                    let mut dots = [V::splat(0); T];
                    if V::OFFSET && !MINS {
                        for t in 0..T {
                            dots[t] = V::splat(if GROUPS == 8 { a[t].offsets32[g] } else { a[t].offsets[g] });
                        }
                    }
                    let values = g * WIDE / GROUPS..(g + 1) * WIDE / GROUPS;
                    let bytes = a.map(|a| a.q[values.clone()].as_ptr());
                    let dots = match MINS {
                        true => V::dots::<T, false>(dots, quads, bytes),
                        false => V::dots::<T, true>(dots, quads, bytes),
                    };
                    for t in 0..T {
                        products[t] = V::add_scaled(products[t], dots[t], &scales.0);
                    }
                }
                let d = V::load(&d.0);
                for t in 0..T {
                    let scale = V::mul(d, V::splat_f(a[t].d));
                    sums[t] = V::add(sums[t], V::mul(scale, V::to_f(products[t])));
                }
                if MINS {
                    let dmin = V::load(&self.dmin[index].0);
                    let mins = &self.mins[index * GROUPS / 2..][..GROUPS / 2];
                    for t in 0..T {
                        let mut offsets = V::splat(0);
                        for (i, mins) in mins.iter().enumerate() {
                            let pair = |sums: &[i16]| i32::from(sums[2 * i] as u16) | i32::from(sums[2 * i + 1]) << 16;
                            let pair = if GROUPS == 8 { pair(&a[t].sums32) } else { pair(&a[t].sums) };
                            offsets = V::add_pairs(offsets, &mins.0, pair);
                        }
                        let scale = V::mul(dmin, V::splat_f(a[t].d));
                        sums[t] = V::sub(sums[t], V::mul(scale, V::to_f(offsets)));
                    }
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn narrow<V: Lanes, const T: usize, const MINS: bool>(&self, rows: [&[NarrowBlock]; T]) -> [V::F; T] {
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            let mut sums = [V::splat_f(0.0); T];
            for (index, (quads, d)) in self.q.chunks_exact(NARROW / 4).zip(&self.d).enumerate() {
                let a: [&NarrowBlock; T] = rows.map(|row| &row[index / self.shared]);
                let mut dots = [V::splat(0); T];
                if V::OFFSET && !MINS {
                    for t in 0..T {
                        dots[t] = V::splat(a[t].offset);
                    }
                }
                let bytes = a.map(|a| a.q.as_ptr());
                let dots = match MINS {
                    true => V::dots::<T, false>(dots, quads, bytes),
                    false => V::dots::<T, true>(dots, quads, bytes),
                };
                let d = V::load(&d.0);
                for t in 0..T {
                    let scale = V::mul(d, V::splat_f(a[t].d));
                    sums[t] = V::add(sums[t], V::mul(scale, V::to_f(dots[t])));
                    if MINS {
                        let dmin = V::load(&self.dmin[index].0);
                        sums[t] = V::sub(sums[t], V::mul(dmin, V::splat_f(a[t].sum)));
                    }
                }
            }
            sums
        }
    }

    fn narrow_rows<'a, const T: usize>(&self, rows: &[Row<'a>]) -> [&'a [NarrowBlock]; T] {
        std::array::from_fn(|t| match rows[t] {
            Row::Narrow(row) if row.len() * self.shared == self.blocks => row,
            _ => panic!("activations do not fit the panel"),
        })
    }
}

fn wide_rows<'a, const T: usize>(rows: &[Row<'a>], blocks: usize) -> [&'a [WideBlock]; T] {
    std::array::from_fn(|t| match rows[t] {
        Row::Wide(row) if row.len() == blocks => row,
        _ => panic!("activations do not fit the panel"),
    })
}

pub fn fill_portable(ty: GgmlType, rows: &[u8], count: usize, panel: &mut Panel) {
    if super::form(ty) == Some(Form::Wide) {
        for_wide!(ty, B => panel.fill_wide::<B>(rows, count, false, Wide::unpack), _ => ());
    } else {
        for_narrow!(ty, B => panel.fill_narrow::<B>(rows, count, false), _ => panic!("{ty} has no form"));
    }
}

pub fn dot_portable(panel: &Panel, activations: &[Row<'_>], out: &mut [[f32; PANEL_ROWS]]) {
    // SAFETY: no special instructions are needed.
    unsafe { panel.dot::<Portable, 2>(activations, out) }
}
