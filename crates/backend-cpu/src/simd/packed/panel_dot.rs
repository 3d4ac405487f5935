//! Products of a panel with rows of activations. A tile of two vectors of rows by some tokens has its integer sums in
//! registers, the sums of a group and those of a block; f32 sums wait in memory, as they do between panels.

use super::activations::{NarrowBlock, Row, WideBlock};
use super::lanes::{Lanes, Portable, Sums};
use super::panel::{Lanes32, Panel, Stripe, VECTORS};
use super::portable::Plain;
use super::{Form, NARROW, WIDE, for_narrow, for_wide};
use quant::GgmlType;

/// f32 sums of some tokens.
type Floats<V, const R: usize, const T: usize> = [[<V as Lanes>::F; R]; T];

impl Panel {
    /// Adds products with all rows of activations from value `start` on to `out`, which begins at 0 if `start` does, `R`
    /// vectors of rows and `T` tokens at a time.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`, with which the panel was filled.
    #[inline(always)]
    pub unsafe fn dot<V: Lanes, const R: usize, const T: usize>(
        &self,
        activations: &[Row<'_>],
        start: usize,
        out: &mut [Lanes32<f32>],
    ) {
        let mut first = 0;
        while first < activations.len() {
            let end = activations.len().min(first + T);
            let mut vector = 0;
            while vector < VECTORS {
                // SAFETY: passed on.
                unsafe { self.tile::<V, R, T>(&activations[first..end], start, vector, &mut out[first..end]) };
                vector += R;
            }
            first = end;
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Lanes, const R: usize, const T: usize>(
        &self,
        rows: &[Row<'_>],
        start: usize,
        vector: usize,
        out: &mut [Lanes32<f32>],
    ) {
        // SAFETY: passed on.
        unsafe {
            let mut sums = [[V::splat_f(0.0); R]; T];
            if start > 0 {
                for t in 0..rows.len().min(T) {
                    for r in 0..R {
                        sums[t][r] = V::load(&out[t][vector + r].0);
                    }
                }
            }
            let sums = match self.form {
                Form::Wide => {
                    // Rows that are missing are the last one again.
                    let mut own = [self.wide_row(rows[0], start); T];
                    for t in 1..T {
                        own[t] = self.wide_row(rows[t.min(rows.len() - 1)], start);
                    }
                    let rows = own;
                    match (self.groups, self.has_mins) {
                        (8, false) => self.wide::<V, R, T, 8, false>(rows, vector, sums),
                        (8, true) => self.wide::<V, R, T, 8, true>(rows, vector, sums),
                        (_, false) => self.wide::<V, R, T, 16, false>(rows, vector, sums),
                        (_, true) => self.wide::<V, R, T, 16, true>(rows, vector, sums),
                    }
                }
                Form::Narrow => {
                    let mut own = [self.narrow_row(rows[0], start); T];
                    for t in 1..T {
                        own[t] = self.narrow_row(rows[t.min(rows.len() - 1)], start);
                    }
                    let rows = own;
                    match self.has_mins {
                        false => self.narrow::<V, R, T, false>(rows, vector, sums),
                        true => self.narrow::<V, R, T, true>(rows, vector, sums),
                    }
                }
            };
            for t in 0..rows.len().min(T) {
                for r in 0..R {
                    V::store(sums[t][r], &mut out[t][vector + r].0);
                }
            }
        }
    }

    #[inline(always)]
    fn wide_row<'a>(&self, row: Row<'a>, start: usize) -> &'a [WideBlock] {
        match row {
            Row::Wide(row) => &row[start / WIDE..][..self.blocks],
            Row::Narrow(_) => panic!("activations do not fit the panel"),
        }
    }

    #[inline(always)]
    fn narrow_row<'a>(&self, row: Row<'a>, start: usize) -> &'a [NarrowBlock] {
        match row {
            Row::Narrow(row) => &row[start / NARROW..][..self.blocks / self.shared],
            Row::Wide(_) => panic!("activations do not fit the panel"),
        }
    }

    #[inline(always)]
    unsafe fn wide<V: Lanes, const R: usize, const T: usize, const GROUPS: usize, const MINS: bool>(
        &self,
        rows: [&[WideBlock]; T],
        vector: usize,
        mut sums: Floats<V, R, T>,
    ) -> Floats<V, R, T> {
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            for index in 0..self.blocks {
                let quads = &self.q[index * (WIDE / 4)..][..WIDE / 4];
                let (scales, d) = (&self.scales[index * GROUPS..][..GROUPS], &self.d[index]);
                let mut a = [&rows[0][index]; T];
                for t in 1..T {
                    a[t] = &rows[t][index];
                }
                let mut products = [[V::splat(0); R]; T];
                for g in 0..GROUPS {
                    let quads = &quads[g * (WIDE / 4 / GROUPS)..][..WIDE / 4 / GROUPS];
                    let mut dots = [[V::splat(0); R]; T];
                    if V::OFFSET && !MINS {
                        for t in 0..T {
                            dots[t] = [V::splat(if GROUPS == 8 { a[t].offsets32[g] } else { a[t].offsets[g] }); R];
                        }
                    }
                    let mut bytes = [a[0].q.as_ptr(); T];
                    for t in 0..T {
                        bytes[t] = a[t].q[g * WIDE / GROUPS..(g + 1) * WIDE / GROUPS].as_ptr();
                    }
                    let dots = match MINS {
                        true => V::dots::<R, T, false>(dots, quads, vector, bytes),
                        false => V::dots::<R, T, true>(dots, quads, vector, bytes),
                    };
                    for r in 0..R {
                        let scales = V::scales(&scales[g][vector + r].0);
                        for t in 0..T {
                            products[t][r] = V::add_scaled(products[t][r], dots[t][r], scales);
                        }
                    }
                }
                self.add_wide::<V, R, T>(&mut sums, &products, d, vector, a);
                if MINS {
                    let mins = &self.mins[index * GROUPS / 2..][..GROUPS / 2];
                    let mut offsets = [[V::splat(0); R]; T];
                    for i in 0..GROUPS / 2 {
                        for t in 0..T {
                            let sums = if GROUPS == 8 { &a[t].sums32[..] } else { &a[t].sums[..] };
                            let pair = i32::from(sums[2 * i] as u16) | i32::from(sums[2 * i + 1]) << 16;
                            for r in 0..R {
                                offsets[t][r] = V::add_pairs(offsets[t][r], &mins[i][vector + r].0, pair);
                            }
                        }
                    }
                    for r in 0..R {
                        let dmin = V::load(&self.dmin[index][vector + r].0);
                        for t in 0..T {
                            let scale = V::mul(dmin, V::splat_f(a[t].d));
                            sums[t][r] = V::sub(sums[t][r], V::mul(scale, V::to_f(offsets[t][r])));
                        }
                    }
                }
            }
            sums
        }
    }

    /// Adds integer sums of a wide block by its scale.
    #[inline(always)]
    unsafe fn add_wide<V: Lanes, const R: usize, const T: usize>(
        &self,
        sums: &mut Floats<V, R, T>,
        products: &Sums<V, R, T>,
        d: &Lanes32<f32>,
        vector: usize,
        a: [&WideBlock; T],
    ) {
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            for r in 0..R {
                let d = V::load(&d[vector + r].0);
                for t in 0..T {
                    let scale = V::mul(d, V::splat_f(a[t].d));
                    sums[t][r] = V::add(sums[t][r], V::mul(scale, V::to_f(products[t][r])));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn narrow<V: Lanes, const R: usize, const T: usize, const MINS: bool>(
        &self,
        rows: [&[NarrowBlock]; T],
        vector: usize,
        mut sums: Floats<V, R, T>,
    ) -> Floats<V, R, T> {
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            for index in 0..self.blocks {
                let (quads, d) = (&self.q[index * (NARROW / 4)..][..NARROW / 4], &self.d[index]);
                let mut a = [&rows[0][index / self.shared]; T];
                for t in 1..T {
                    a[t] = &rows[t][index / self.shared];
                }
                let mut dots = [[V::splat(0); R]; T];
                if V::OFFSET && !MINS {
                    for t in 0..T {
                        dots[t] = [V::splat(a[t].offset); R];
                    }
                }
                let mut bytes = [a[0].q.as_ptr(); T];
                for t in 1..T {
                    bytes[t] = a[t].q.as_ptr();
                }
                let dots = match MINS {
                    true => V::dots::<R, T, false>(dots, quads, vector, bytes),
                    false => V::dots::<R, T, true>(dots, quads, vector, bytes),
                };
                for r in 0..R {
                    let d = V::load(&d[vector + r].0);
                    for t in 0..T {
                        let scale = V::mul(d, V::splat_f(a[t].d));
                        sums[t][r] = V::add(sums[t][r], V::mul(scale, V::to_f(dots[t][r])));
                    }
                    if MINS {
                        let dmin = V::load(&self.dmin[index][vector + r].0);
                        for t in 0..T {
                            sums[t][r] = V::sub(sums[t][r], V::mul(dmin, V::splat_f(a[t].sum)));
                        }
                    }
                }
            }
            sums
        }
    }
}

pub fn fill_portable(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    // SAFETY: no special instructions are needed.
    unsafe {
        if super::form(ty) == Some(Form::Wide) {
            for_wide!(ty, B => panel.fill_wide::<Portable, B, Plain>(stripe), _ => ());
        } else {
            for_narrow!(ty, B => panel.fill_narrow::<Portable, B, Plain>(stripe), _ => panic!("{ty} has no form"));
        }
    }
}

pub fn dot_portable(panel: &Panel, activations: &[Row<'_>], start: usize, out: &mut [Lanes32<f32>]) {
    // SAFETY: no special instructions are needed.
    unsafe { panel.dot::<Portable, 1, 2>(activations, start, out) }
}
