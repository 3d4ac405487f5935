//! Operations of a stream of several parts (AltUp), and of a layer's low-rank branch (LAuReL).

use crate::ops::Ops;
use backend::{BackendError, Mix, Op, View};
use model::{AltUpLayer, Laurel, Linear, Merge, Slot};

impl Ops<'_> {
    /// What the layer computes on: the active part, predicted from all parts. The predictions stay in their slot.
    pub fn predict(&mut self, a: &AltUpLayer) -> Result<View, BackendError> {
        let (streams, predicted, active) =
            (self.slot(Slot::Hidden)?, self.slot(Slot::Predicted)?, self.slot(Slot::Active)?);
        let len = a.streams.count * self.width();
        self.take_active(a, streams, active)?;
        let weights = self.coefficients(a, active, &a.predict)?;
        self.copy(streams, predicted, [len; 2], self.n, len)?;
        let mix =
            Mix { inputs: a.streams.count, outputs: a.streams.count, dim: self.width(), out_stride: len, offset: 0.0 };
        self.run(&Op::Mix { mix, input: streams, weights: Some(weights), n: self.n, out: predicted })?;
        self.take_active(a, predicted, active)?;
        Ok(active)
    }

    /// The stream after the layer: predictions, corrected by what the layer made of the active one.
    pub fn correct(&mut self, a: &AltUpLayer, computed: View) -> Result<(), BackendError> {
        let (streams, predicted, surprise) =
            (self.slot(Slot::Hidden)?, self.slot(Slot::Predicted)?, self.slot(Slot::Delta)?);
        let len = a.streams.count * self.width();
        let weights = self.coefficients(a, computed, &a.correct)?;
        self.take_active(a, predicted, surprise)?;
        let all = self.n * self.width();
        self.run(&Op::Add { a: computed, b: surprise, scale: -1.0, len: all, out: surprise })?;
        let mix = Mix { inputs: 1, outputs: a.streams.count, dim: self.width(), out_stride: len, offset: 1.0 };
        self.run(&Op::Mix { mix, input: surprise, weights: Some(weights), n: self.n, out: predicted })?;
        self.copy(predicted, streams, [len; 2], self.n, len)
    }

    /// The active part as per-layer inputs meet it.
    pub fn corrected(&mut self, a: &AltUpLayer) -> Result<View, BackendError> {
        let (streams, active) = (self.slot(Slot::Hidden)?, self.slot(Slot::Active)?);
        self.take_active(a, streams, active)?;
        let factors = self.required(&a.correct_scale)?;
        self.run(&Op::ScaleColumns { x: active, factors, rows: self.n, dim: self.width() })?;
        Ok(active)
    }

    /// Adds to all parts but the first.
    pub fn spread(&mut self, a: &AltUpLayer, delta: View) -> Result<(), BackendError> {
        let (streams, dim) = (self.slot(Slot::Hidden)?, self.width());
        let (outputs, out_stride) = (a.streams.count - 1, a.streams.count * dim);
        let mix = Mix { inputs: 1, outputs, dim, out_stride, offset: 1.0 };
        self.run(&Op::Mix { mix, input: delta, weights: None, n: self.n, out: streams.at(dim) })
    }

    fn take_active(&mut self, a: &AltUpLayer, streams: View, out: View) -> Result<(), BackendError> {
        let dim = self.width();
        self.copy(streams.at(a.streams.active * dim), out, [a.streams.count * dim, dim], self.n, dim)
    }

    /// `linear(tanh(router(norm(x)) / embedding_length))`
    fn coefficients(&mut self, a: &AltUpLayer, x: View, linear: &Linear) -> Result<View, BackendError> {
        let (modalities, out) = (self.slot(Slot::Modalities)?, self.slot(Slot::Coefficients)?);
        let (len, factor) = (self.n * a.streams.count, 1.0 / self.width() as f32);
        let normed = self.normed(Some(&a.router_norm), x)?;
        self.linears(normed, &[(&a.router, modalities)])?;
        self.scale(modalities, factor, len)?;
        self.run(&Op::Softcap { x: modalities, cap: 1.0, len })?;
        self.linears(modalities, &[(linear, out)])?;
        Ok(out)
    }

    /// `input + norm(right(left(input)))`, into Branch.
    pub fn laurel(&mut self, laurel: &Laurel, input: View) -> Result<(), BackendError> {
        let (low, out) = (self.slot(Slot::Gate)?, self.slot(Slot::Branch)?);
        self.linears(input, &[(&laurel.left, low)])?;
        self.linears(low, &[(&laurel.right, out)])?;
        self.post_norm(Some(&laurel.norm), out)?;
        self.add(out, input, 1.0)
    }

    /// The parts of the selected rows as one: the mean of the first and the others' projections, which are given the
    /// active part's length.
    pub fn merge(&mut self, merge: &Merge, selected: View) -> Result<View, BackendError> {
        let (n, dim) = (self.n, self.width());
        let (count, stride) = (merge.streams.count, merge.streams.count * dim);
        let (merged, part, projected) =
            (self.slot(Slot::Merged)?, self.slot(Slot::Part)?, self.slot(Slot::PartProjected)?);
        self.copy(selected, merged, [stride, dim], n, dim)?;
        for index in 1..count {
            self.copy(selected.at(index * dim), part, [stride, dim], n, dim)?;
            let linear = merge.projection.part((index - 1) * dim, dim);
            self.linears(part, &[(&linear, projected)])?;
            let like = selected.at(merge.streams.active * dim);
            self.run(&Op::MatchLength { x: projected, rows: n, dim, like, like_stride: stride })?;
            self.add(merged, projected, 1.0)?;
        }
        self.scale(merged, 1.0 / count as f32, n * dim)?;
        Ok(merged)
    }
}
