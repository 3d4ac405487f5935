//! Issues the operations of one layer: norms, products, residuals. Mixers and feed-forwards have files of their own.

use crate::decoder::Context;
use crate::site::{LayerBuffers, Site};
use backend::{Activation, BackendError, Linear as Product, Op, State, View, Weight};
use model::{FeedForward, Layer, Linear, Mixer, Norm, PerLayer, Slot};

/// One layer's operations for `n` rows at positions `start..`.
pub(crate) struct Ops<'a> {
    pub context: &'a Context<'a>,
    pub site: &'a mut Site,
    /// Where the layer's routed experts are, if not here.
    pub experts_site: Option<&'a mut Site>,
    pub index: usize,
    pub n: usize,
    pub start: usize,
}

/// An operation that failed, here or where the experts are.
pub(crate) struct Failed {
    pub error: BackendError,
    pub elsewhere: bool,
}

impl From<BackendError> for Failed {
    fn from(error: BackendError) -> Failed {
        Failed { error, elsewhere: false }
    }
}

impl Ops<'_> {
    pub fn layer(mut self, layer: &Layer) -> Result<(), Failed> {
        let delta = self.slot(Slot::Delta)?;
        let hidden = match &layer.alt_up {
            Some(alt_up) => self.predict(alt_up)?,
            None => self.slot(Slot::Hidden)?,
        };
        let mut input = hidden;
        if let Some(mixer) = &layer.mixer {
            input = self.normed(mixer.norm.as_ref(), hidden)?;
            if let Some(laurel) = &layer.laurel {
                self.laurel(laurel, input)?;
            }
            match &mixer.part {
                Mixer::Attention(attention) => self.attention(attention, input, delta)?,
                Mixer::Latent(latent) => self.latent(latent, input, delta)?,
                Mixer::ShortConv(conv) => self.short_conv(conv, input, delta)?,
                Mixer::DeltaNet(net) => self.delta_net(net, input, delta)?,
                Mixer::Mamba(mamba) => self.mamba(mamba, input, delta)?,
            }
            self.post_norm(mixer.post_norm.as_ref(), delta)?;
            if !layer.parallel {
                self.add(hidden, delta, layer.residual_scale)?;
            }
            if layer.laurel.is_some() {
                let branch = self.slot(Slot::Branch)?;
                self.add(hidden, branch, 1.0)?;
                self.scale(hidden, std::f32::consts::FRAC_1_SQRT_2, self.n * self.width())?;
            }
        }
        if let Some(feed_forward) = &layer.feed_forward {
            let (input, out) = match layer.parallel {
                true => (input, self.slot(Slot::Branch)?),
                false => (self.normed(feed_forward.norm.as_ref(), hidden)?, delta),
            };
            match &feed_forward.part {
                FeedForward::Dense(dense) => self.dense(dense, input, out)?,
                FeedForward::Experts(experts) => self.experts(experts, input, out)?,
            }
            self.post_norm(feed_forward.post_norm.as_ref(), out)?;
            if layer.parallel {
                self.add(hidden, delta, layer.residual_scale)?;
            }
            self.add(hidden, out, layer.residual_scale)?;
        }
        if let Some(alt_up) = &layer.alt_up {
            self.correct(alt_up, hidden)?;
        }
        if let Some(per_layer) = &layer.per_layer {
            match &layer.alt_up {
                Some(alt_up) => {
                    let input = self.corrected(alt_up)?;
                    self.per_layer(per_layer, input, delta)?;
                    self.spread(alt_up, delta)?;
                }
                None => {
                    self.per_layer(per_layer, hidden, delta)?;
                    self.add(hidden, delta, 1.0)?;
                }
            }
        }
        if let Some(scale) = &layer.output_scale {
            let factor = self.context.file.scalar(scale)?;
            self.scale(hidden, factor, self.n * self.width())?;
        }
        Ok(())
    }

    fn per_layer(&mut self, part: &PerLayer, x: View, delta: View) -> Result<(), BackendError> {
        let (gate, len) = (self.slot(Slot::Gate)?, self.n * part.gate.rows);
        let input = self.slot(Slot::PerLayer)?.at(self.index * len);
        self.linears(x, &[(&part.gate, gate)])?;
        self.run(&Op::Activate { act: Activation::GeluTanh, x: gate, len })?;
        self.run(&Op::Mul { a: gate, b: input, len, out: gate })?;
        self.linears(gate, &[(&part.projection, delta)])?;
        self.post_norm(Some(&part.norm), delta)
    }

    pub fn width(&self) -> usize {
        self.context.model.embedding_length
    }

    pub fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        self.site.device.run(op)
    }

    pub fn slot(&self, slot: Slot) -> Result<View, BackendError> {
        self.site.slot(slot)
    }

    fn buffers(&self) -> Result<&LayerBuffers, BackendError> {
        self.site.layer(self.index)
    }

    pub fn view(&self, tensor: Option<model::Tensor>) -> Result<Option<View>, BackendError> {
        tensor.map(|tensor| self.required(&tensor)).transpose()
    }

    pub fn required(&self, tensor: &model::Tensor) -> Result<View, BackendError> {
        self.buffers()?.tensor(tensor)
    }

    pub fn weight(&self, linear: &Linear) -> Result<Weight, BackendError> {
        self.buffers()?.weight(linear)
    }

    /// The state of a recurrent part: `len` values after the first `offset` of the layer's state.
    pub fn state(&self, offset: usize, len: usize) -> Result<State, BackendError> {
        let (buffer, size) = self.buffers()?.state()?;
        let view = |slot: usize| View::new(buffer).at(slot * size + offset);
        debug_assert!(offset + len <= size);
        let before = view(self.context.states.current);
        Ok(State { input: (self.start > 0).then_some(before), output: view(self.context.states.next()) })
    }

    /// `hidden`, or its normalised copy.
    pub fn normed(&mut self, norm: Option<&Norm>, hidden: View) -> Result<View, BackendError> {
        let Some(norm) = norm else { return Ok(hidden) };
        let out = self.slot(Slot::Normed)?;
        self.norm(norm, hidden, self.n * self.width(), out)?;
        Ok(out)
    }

    pub fn post_norm(&mut self, norm: Option<&Norm>, x: View) -> Result<(), BackendError> {
        norm.map_or(Ok(()), |norm| self.norm(norm, x, self.n * self.width(), x))
    }

    /// Normalises `len` values, `norm.dim` together.
    pub fn norm(&mut self, norm: &Norm, input: View, len: usize, out: View) -> Result<(), BackendError> {
        let (weight, bias) = (self.view(norm.weight)?, self.view(norm.bias)?);
        let (kind, dim, eps) = (norm.kind, norm.dim, norm.eps);
        self.run(&Op::Norm { kind, input, rows: len / dim, dim, eps, weight, bias, out })
    }

    /// `x += scale * y` over the stream's rows.
    pub fn add(&mut self, x: View, y: View, scale: f32) -> Result<(), BackendError> {
        let len = self.n * self.width();
        self.run(&Op::Add { a: x, b: y, scale, len, out: x })
    }

    pub fn scale(&mut self, x: View, factor: f32, len: usize) -> Result<(), BackendError> {
        if factor == 1.0 { Ok(()) } else { self.run(&Op::Scale { x, factor, len }) }
    }

    /// Products of one input, each into its own view.
    pub fn linears(&mut self, input: View, linears: &[(&Linear, View)]) -> Result<(), BackendError> {
        let mut products = Vec::with_capacity(linears.len());
        for (linear, out) in linears {
            let scale = linear.scale.map_or(Ok(1.0), |tensor| self.context.file.scalar(&tensor))?;
            let bias = self.view(linear.bias)?.map(|bias| bias.at(linear.first_row));
            products.push(Product { weight: self.weight(linear)?, bias, scale, out: *out });
        }
        self.run(&Op::MatMul { input, n: self.n, products: &products })
    }

    /// Copies `rows` pieces of `dim` values: from every `strides[0]` to every `strides[1]` values.
    pub fn copy(
        &mut self,
        input: View,
        out: View,
        strides: [usize; 2],
        rows: usize,
        dim: usize,
    ) -> Result<(), BackendError> {
        self.run(&Op::CopyRows { input, input_stride: strides[0], rows, dim, out, out_stride: strides[1] })
    }
}
