//! Products of a panel with rows of activations. A tile of two vectors of rows by some tokens has its integer sums in
//! registers, the sums of a group and those of a block; f32 sums wait in memory, as they do between panels.

use super::activations::{Inputs, NarrowBlock, Row, WideBlock};
use super::lanes::{Lanes, Portable};
use super::panel::{Lanes32, Panel, Stripe, VECTORS};
use super::portable::Plain;
use super::{Form, NARROW, WIDE, for_narrow, for_wide};
use quant::GgmlType;
use std::marker::PhantomData;

impl Panel {
    /// Adds products with all rows of activations to `out`, or to 0 if they are `new`, `R` vectors of rows and `T` tokens
    /// at a time.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`, with which the panel was filled.
    #[inline(always)]
    pub unsafe fn dot<V: Lanes, const R: usize, const T: usize>(
        &self,
        inputs: &Inputs<'_>,
        new: bool,
        out: &mut [Lanes32<f32>],
    ) {
        // SAFETY: passed on.
        unsafe {
            match (self.form, self.groups, self.has_mins) {
                (Form::Wide, 8, false) => self.tiles::<R, T, Wide<V, 8, false>>(inputs, new, out),
                (Form::Wide, 8, true) => self.tiles::<R, T, Wide<V, 8, true>>(inputs, new, out),
                (Form::Wide, _, false) => self.tiles::<R, T, Wide<V, 16, false>>(inputs, new, out),
                (Form::Wide, _, true) => self.tiles::<R, T, Wide<V, 16, true>>(inputs, new, out),
                (Form::Narrow, _, false) => self.tiles::<R, T, Narrow<V, false>>(inputs, new, out),
                (Form::Narrow, _, true) => self.tiles::<R, T, Narrow<V, true>>(inputs, new, out),
            }
        }
    }

    /// # Safety
    /// The CPU has the instructions of `K`, in whose way the panel was filled.
    #[inline(always)]
    pub unsafe fn tiles<const R: usize, const T: usize, K: Kernel>(
        &self,
        inputs: &Inputs<'_>,
        new: bool,
        out: &mut [Lanes32<f32>],
    ) {
        if new {
            out.fill(Lanes32::default());
        }
        K::check(self);
        let mut first = 0;
        while first < inputs.places.len() {
            let count = T.min(inputs.places.len() - first);
            // Rows that are missing are the last one again, with sums that nobody reads.
            let mut rows = [K::row(self, inputs, first); T];
            for t in 1..T {
                rows[t] = K::row(self, inputs, first + t.min(count - 1));
            }
            let out = &mut out[first..first + count];
            let mut spare = [Lanes32::default(); T];
            let sums = if count == T {
                out.as_mut_ptr()
            } else {
                spare[..count].copy_from_slice(out);
                spare.as_mut_ptr()
            };
            let mut vector = 0;
            while vector < VECTORS {
                // SAFETY: `check` saw that the panel has all of its blocks, `row` that each row has; there are `T` sums.
                unsafe { K::tile::<R, T>(self, rows, vector, sums) };
                vector += R;
            }
            if count < T {
                out.copy_from_slice(&spare[..count]);
            }
            first += T;
        }
    }
}

/// How blocks of a form meet activations.
pub trait Kernel {
    type Activation;
    /// # Panics
    /// The panel does not have what its shape says.
    fn check(panel: &Panel);
    /// The blocks of row `index`.
    ///
    /// # Panics
    /// There are not as many as the panel has, or they have another form.
    fn row(panel: &Panel, inputs: &Inputs<'_>, index: usize) -> *const Self::Activation;
    /// Adds products with `T` rows to their sums.
    ///
    /// # Safety
    /// The CPU has the instructions; `check` and `row` have seen the panel and the rows; `sums` are `T`.
    unsafe fn tile<const R: usize, const T: usize>(
        panel: &Panel,
        rows: [*const Self::Activation; T],
        vector: usize,
        sums: *mut Lanes32<f32>,
    );
}

pub struct Wide<V, const GROUPS: usize, const MINS: bool>(PhantomData<V>);
pub struct Narrow<V, const MINS: bool>(PhantomData<V>);

// Pointers, and loops over indices: bounds that are checked, slices that are kept, and what is not inlined, cost a quarter of
// the time.

impl<V: Lanes, const GROUPS: usize, const MINS: bool> Kernel for Wide<V, GROUPS, MINS> {
    type Activation = WideBlock;

    #[inline(always)]
    fn check(panel: &Panel) {
        assert!(panel.q.len() >= panel.blocks * (WIDE / 4) && panel.d.len() >= panel.blocks);
        assert!(panel.scales.len() >= panel.blocks * GROUPS);
        assert!(!MINS || panel.mins.len() >= panel.blocks * GROUPS / 2 && panel.dmin.len() >= panel.blocks);
    }

    #[inline(always)]
    fn row(panel: &Panel, inputs: &Inputs<'_>, index: usize) -> *const WideBlock {
        match inputs.blocks {
            Row::Wide(all) => all[inputs.places[index] * inputs.stride + inputs.first..][..panel.blocks].as_ptr(),
            Row::Narrow(_) => panic!("activations do not fit the panel"),
        }
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const T: usize>(
        panel: &Panel,
        rows: [*const WideBlock; T],
        vector: usize,
        sums: *mut Lanes32<f32>,
    ) {
        // SAFETY: all indices are below what the caller has checked: blocks, and inside them groups, vectors and values.
        unsafe {
            for index in 0..panel.blocks {
                let quads = panel.q.as_ptr().add(index * (WIDE / 4));
                let scales = panel.scales.as_ptr().add(index * GROUPS);
                let mut products = [[V::splat(0); R]; T];
                for g in 0..GROUPS {
                    let mut dots = [[V::splat(0); R]; T];
                    let mut bytes = [rows[0].cast::<i8>(); T];
                    for t in 0..T {
                        let a = rows[t].add(index);
                        if V::OFFSET && !MINS {
                            let offset = if GROUPS == 8 { (*a).offsets32[g] } else { (*a).offsets[g] };
                            dots[t] = [V::splat(offset); R];
                        }
                        bytes[t] = (&raw const (*a).q).cast::<i8>().add(g * (WIDE / GROUPS));
                    }
                    let count = WIDE / 4 / GROUPS;
                    let quads = std::slice::from_raw_parts(quads.add(g * count), count);
                    let dots = V::dots::<R, T>(dots, quads, vector, bytes);
                    for r in 0..R {
                        let scales = V::scales(&(*scales.add(g))[vector + r].0);
                        for t in 0..T {
                            products[t][r] = V::add_scaled(products[t][r], dots[t][r], scales);
                        }
                    }
                }
                let mut done = [[V::splat_f(0.0); R]; T];
                for r in 0..R {
                    let d = V::load(&(*panel.d.as_ptr().add(index))[vector + r].0);
                    for t in 0..T {
                        let scale = V::mul(d, V::splat_f((*rows[t].add(index)).d));
                        let sum = V::load(&(*sums.add(t))[vector + r].0);
                        done[t][r] = V::add(sum, V::mul(scale, V::to_f(products[t][r])));
                    }
                }
                if MINS {
                    let mins = panel.mins.as_ptr().add(index * GROUPS / 2);
                    let mut offsets = [[V::splat(0); R]; T];
                    for i in 0..GROUPS / 2 {
                        for t in 0..T {
                            let a = rows[t].add(index);
                            let sums = if GROUPS == 8 { (*a).sums32.as_ptr() } else { (*a).sums.as_ptr() };
                            let [low, high] = *sums.add(2 * i).cast::<[i16; 2]>();
                            let pair = i32::from(low as u16) | i32::from(high) << 16;
                            for r in 0..R {
                                offsets[t][r] = V::add_pairs(offsets[t][r], &(*mins.add(i))[vector + r].0, pair);
                            }
                        }
                    }
                    for r in 0..R {
                        let dmin = V::load(&(*panel.dmin.as_ptr().add(index))[vector + r].0);
                        for t in 0..T {
                            let scale = V::mul(dmin, V::splat_f((*rows[t].add(index)).d));
                            done[t][r] = V::sub(done[t][r], V::mul(scale, V::to_f(offsets[t][r])));
                        }
                    }
                }
                for t in 0..T {
                    for r in 0..R {
                        V::store(done[t][r], &mut (*sums.add(t))[vector + r].0);
                    }
                }
            }
        }
    }
}

impl<V: Lanes, const MINS: bool> Kernel for Narrow<V, MINS> {
    type Activation = NarrowBlock;

    #[inline(always)]
    fn check(panel: &Panel) {
        assert!(panel.q.len() >= panel.blocks * (NARROW / 4) && panel.d.len() >= panel.blocks);
        assert!(panel.shared > 0 && panel.blocks % panel.shared == 0 && (!MINS || panel.dmin.len() >= panel.blocks));
    }

    #[inline(always)]
    fn row(panel: &Panel, inputs: &Inputs<'_>, index: usize) -> *const NarrowBlock {
        match inputs.blocks {
            Row::Narrow(all) => {
                all[inputs.places[index] * inputs.stride + inputs.first..][..panel.blocks / panel.shared].as_ptr()
            }
            Row::Wide(_) => panic!("activations do not fit the panel"),
        }
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const T: usize>(
        panel: &Panel,
        rows: [*const NarrowBlock; T],
        vector: usize,
        sums: *mut Lanes32<f32>,
    ) {
        // SAFETY: all indices are below what the caller has checked: blocks, and inside them vectors and values.
        unsafe {
            let mut done = [[V::splat_f(0.0); R]; T];
            for t in 0..T {
                for r in 0..R {
                    done[t][r] = V::load(&(*sums.add(t))[vector + r].0);
                }
            }
            for index in 0..panel.blocks {
                let place = index / panel.shared;
                let quads = std::slice::from_raw_parts(panel.q.as_ptr().add(index * (NARROW / 4)), NARROW / 4);
                let mut dots = [[V::splat(0); R]; T];
                let mut bytes = [rows[0].cast::<i8>(); T];
                for t in 0..T {
                    let a = rows[t].add(place);
                    if V::OFFSET && !MINS {
                        dots[t] = [V::splat((*a).offset); R];
                    }
                    bytes[t] = (&raw const (*a).q).cast::<i8>();
                }
                let dots = V::dots::<R, T>(dots, quads, vector, bytes);
                for r in 0..R {
                    let d = V::load(&(*panel.d.as_ptr().add(index))[vector + r].0);
                    for t in 0..T {
                        let scale = V::mul(d, V::splat_f((*rows[t].add(place)).d));
                        done[t][r] = V::add(done[t][r], V::mul(scale, V::to_f(dots[t][r])));
                    }
                    if MINS {
                        let dmin = V::load(&(*panel.dmin.as_ptr().add(index))[vector + r].0);
                        for t in 0..T {
                            let sum = V::splat_f((*rows[t].add(place)).sum);
                            done[t][r] = V::sub(done[t][r], V::mul(dmin, sum));
                        }
                    }
                }
            }
            for t in 0..T {
                for r in 0..R {
                    V::store(done[t][r], &mut (*sums.add(t))[vector + r].0);
                }
            }
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

pub fn dot_portable(panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
    // SAFETY: no special instructions are needed.
    unsafe { panel.dot::<Portable, 1, 2>(inputs, new, out) }
}
