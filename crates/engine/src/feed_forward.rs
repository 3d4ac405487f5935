//! Operations of feed-forwards.

use crate::expert_paging::Guess;
use crate::ops::{Failed, Ops};
use backend::{Activation, BackendError, Op, View};
use model::{Dense, ExpertInput, Experts, Layer, Linear, SharedExpert, Slot};
use weights::Ticket;

impl Ops<'_> {
    pub fn dense(&mut self, f: &Dense, input: View, out: View) -> Result<(), BackendError> {
        let (gate, up) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?);
        let dim = f.up.rows;
        let inner = match &f.gate {
            Some(linear) => {
                self.linears(input, &[(linear, gate), (&f.up, up)])?;
                if let Some(deviations) = f.sparsity {
                    self.run(&Op::Sparsify { x: gate, rows: self.n, dim, deviations })?;
                }
                self.run(&Op::Glu { act: f.act, gate, up, rows: self.n, dim, stride: dim, out: gate })?;
                gate
            }
            None => {
                self.linears(input, &[(&f.up, up)])?;
                self.run(&Op::Activate { act: f.act, x: up, len: self.n * dim })?;
                up
            }
        };
        self.linears(inner, &[(&f.down, out)])
    }

    /// `input` is what the layer's norm gives; parts with norms of their own read the stream.
    pub fn experts(&mut self, f: &Experts, input: View, out: View) -> Result<(), Failed> {
        let n = self.n;
        let (logits, ids, weights) =
            (self.slot(Slot::RouterLogits)?, self.slot(Slot::ExpertIds)?, self.slot(Slot::ExpertWeights)?);
        let router_input = self.normed_or(f.logits_norm.as_ref(), input)?;
        self.linears(router_input, &[(&f.logits, logits)])?;
        self.scale(logits, f.logits_scale, n * f.router.experts)?;
        let bias = self.view(f.router_bias)?;
        self.run(&Op::Route { router: f.router, logits, n, bias, ids, weights })?;
        if self.experts_site.is_some() {
            return self.experts_apart(f, input, out);
        }
        let tickets = self.choose(f, ids)?;
        self.guess(out)?;
        let (expert_input, sum) = self.expert_input(f, input, out)?;
        self.chosen(f, tickets, expert_input, [ids, weights], sum)?;
        self.expert_output(f, sum, out)?;
        if let Some(shared) = &f.shared {
            let branch = self.shared(shared, input)?;
            self.add(out, branch, 1.0)?;
        }
        Ok(())
    }

    /// What the chosen experts read, and where their sum goes.
    fn expert_input(&mut self, f: &Experts, input: View, out: View) -> Result<(View, View), BackendError> {
        let normed = self.normed_or(f.norm.as_ref(), input)?;
        let Some(latent) = &f.latent else { return Ok((normed, out)) };
        let narrow = self.slot(Slot::Latent)?;
        self.linears(normed, &[(&latent.down, narrow)])?;
        Ok((narrow, narrow))
    }

    fn expert_output(&mut self, f: &Experts, sum: View, out: View) -> Result<(), BackendError> {
        if let Some(latent) = &f.latent {
            self.linears(sum, &[(&latent.up, out)])?;
        }
        self.post_norm(f.post_norm.as_ref(), out)
    }

    /// The chosen experts are computed where they are. Meanwhile the expert that every token takes can be computed here.
    fn experts_apart(&mut self, f: &Experts, input: View, out: View) -> Result<(), Failed> {
        let (ids, weights) = (self.slot(Slot::ExpertIds)?, self.slot(Slot::ExpertWeights)?);
        let (expert_input, sum) = self.expert_input(f, input, out)?;
        let (n, width, used) = (self.n, f.down.rows, f.router.used);
        let mut rows = [vec![0u8; n * width * 4], vec![0u8; n * used * 4], vec![0u8; n * used * 4]];
        for (view, bytes) in [expert_input, ids, weights].into_iter().zip(&mut rows) {
            self.site.device.read(view.buffer, view.offset, bytes)?;
        }
        let branch = f.shared.as_ref().map(|shared| self.shared(shared, input)).transpose()?;
        self.site.device.start()?;
        let Some(site) = self.experts_site.as_deref_mut() else { return Ok(()) };
        let there = Ops { site, experts_site: None, context: self.context, index: self.index, n, start: self.start };
        let values = there.chosen_of(f, &rows).map_err(|error| Failed { error, elsewhere: true })?;
        self.site.device.write(sum.buffer, sum.offset, &values)?;
        self.expert_output(f, sum, out)?;
        branch.map_or(Ok(()), |branch| self.add(out, branch, 1.0))?;
        Ok(())
    }

    /// What the chosen experts make of rows from elsewhere: their input, the choice and its weights.
    fn chosen_of(mut self, f: &Experts, rows: &[Vec<u8>; 3]) -> Result<Vec<u8>, BackendError> {
        let slots = [Slot::Normed, Slot::ExpertIds, Slot::ExpertWeights];
        let (out, mut sum) = (self.slot(Slot::Delta)?, vec![0u8; rows[0].len()]);
        for (slot, bytes) in slots.into_iter().zip(rows) {
            let view = self.slot(slot)?;
            self.site.device.write(view.buffer, view.offset, bytes)?;
        }
        let [input, ids, weights] = [self.slot(slots[0])?, self.slot(slots[1])?, self.slot(slots[2])?];
        let tickets = self.choose(f, ids)?;
        self.chosen(f, tickets, input, [ids, weights], out)?;
        self.site.device.read(out.buffer, out.offset, &mut sum)?;
        Ok(sum)
    }

    /// The weighted sum of what the chosen experts make of `input`.
    fn chosen(
        &mut self,
        f: &Experts,
        [inputs, down]: [Option<Ticket>; 2],
        input: View,
        [ids, weights]: [View; 2],
        out: View,
    ) -> Result<(), BackendError> {
        let deltas = self.slot(Slot::ExpertDelta)?;
        self.wait(inputs);
        let inner = self.expert_inner(f, input, ids)?;
        self.wait(down);
        self.expert_linear(&f.down, f, inner, true, ids, deltas)?;
        self.run(&Op::Combine { input: deltas, weights, n: self.n, used: f.router.used, dim: f.down.rows, out })
    }

    /// Where weights come from disk: asks for the experts in `ids`, and returns what to wait for before their input
    /// matrices are used, and before `down` is.
    fn choose(&mut self, f: &Experts, ids: View) -> Result<[Option<Ticket>; 2], BackendError> {
        if self.site.paging.is_none() {
            return Ok([None, None]);
        }
        let ids = self.read_ids(f, ids)?;
        let Some(paging) = &mut self.site.paging else { return Ok([None, None]) };
        let tickets = paging.choose(&f.stacks(), &ids)?;
        let (down, inputs) =
            tickets.split_last().map_or((None, None), |(down, inputs)| (Some(*down), inputs.iter().max().copied()));
        Ok([inputs, down])
    }

    fn read_ids(&mut self, f: &Experts, ids: View) -> Result<Vec<u32>, BackendError> {
        let mut bytes = vec![0u8; self.n * f.router.used * 4];
        self.site.device.read(ids.buffer, ids.offset, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect())
    }

    /// Where weights come from disk: guesses what the next layer's router will choose, so that the disk is busy while
    /// this layer is computed. `scratch` has room for a row of the stream for every row.
    fn guess(&mut self, scratch: View) -> Result<(), BackendError> {
        let (index, rows) = (self.index + 1, self.n);
        let next = self.context.model.layers.get(index).filter(|layer| layer.alt_up.is_none() && self.site.has(index));
        let Some((layer, f)) = next.and_then(|layer| Some((layer, layer.experts()?))) else { return Ok(()) };
        let Some(paging) = &mut self.site.paging else { return Ok(()) };
        match paging.how_to_guess(f.router, rows) {
            Guess::Nothing => Ok(()),
            Guess::All => paging.guess(&f.stacks(), 0..f.router.experts, Guess::All),
            Guess::AsRouted => {
                let mut ops = Ops {
                    context: self.context,
                    site: self.site,
                    experts_site: None,
                    index,
                    n: rows,
                    start: self.start,
                };
                let ids = ops.guessed_ids(layer, f, scratch)?;
                let ids = ids.iter().map(|id| *id as usize);
                let Some(paging) = &mut self.site.paging else { return Ok(()) };
                paging.guess(&f.stacks(), ids, Guess::AsRouted)
            }
        }
    }

    /// What this layer's router would choose if the stream came to it as it is now. Computed where the experts' own
    /// values will be, which nothing needs yet.
    fn guessed_ids(&mut self, layer: &Layer, f: &Experts, scratch: View) -> Result<Vec<u32>, BackendError> {
        let (n, logits) = (self.n, self.slot(Slot::RouterLogits)?);
        let (ids, weights) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?);
        let own = match layer.parallel {
            true => layer.mixer.as_ref().and_then(|mixer| mixer.norm.as_ref()),
            false => layer.feed_forward.as_ref().and_then(|feed_forward| feed_forward.norm.as_ref()),
        };
        let mut input = self.slot(Slot::Hidden)?;
        if let Some(norm) = f.logits_norm.as_ref().or(own) {
            self.norm(norm, input, n * self.width(), scratch)?;
            input = scratch;
        }
        self.linears(input, &[(&f.logits, logits)])?;
        self.scale(logits, f.logits_scale, n * f.router.experts)?;
        let bias = self.view(f.router_bias)?;
        self.run(&Op::Route { router: f.router, logits, n, bias, ids, weights })?;
        self.read_ids(f, ids)
    }

    fn wait(&mut self, ticket: Option<Ticket>) {
        if let (Some(ticket), Some(paging)) = (ticket, &mut self.site.paging) {
            paging.wait(ticket);
        }
    }

    /// A norm of the stream, or what there is.
    fn normed_or(&mut self, norm: Option<&model::Norm>, input: View) -> Result<View, BackendError> {
        if norm.is_none() { Ok(input) } else { self.normed(norm, self.slot(Slot::Hidden)?) }
    }

    /// What the chosen experts' `down` reads, f32 [n, used, dim].
    fn expert_inner(&mut self, f: &Experts, input: View, ids: View) -> Result<View, BackendError> {
        let (gate, up) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?);
        let (act, rows, dim) = (f.act, self.n * f.router.used, f.down.weight.cols);
        match &f.input {
            ExpertInput::Gated { gate: gate_linear, up: up_linear } => {
                self.expert_linear(gate_linear, f, input, false, ids, gate)?;
                self.expert_linear(up_linear, f, input, false, ids, up)?;
                self.run(&Op::Glu { act, gate, up, rows, dim, stride: dim, out: gate })?;
                Ok(gate)
            }
            ExpertInput::Fused(both) => {
                self.expert_linear(both, f, input, false, ids, gate)?;
                self.run(&Op::Glu { act, gate, up: gate.at(dim), rows, dim, stride: 2 * dim, out: up })?;
                Ok(up)
            }
            ExpertInput::Up(up_linear) => {
                self.expert_linear(up_linear, f, input, false, ids, up)?;
                self.run(&Op::Activate { act, x: up, len: rows * dim })?;
                Ok(up)
            }
        }
    }

    /// What every token takes.
    fn shared(&mut self, shared: &SharedExpert, input: View) -> Result<View, BackendError> {
        let branch = self.slot(Slot::Branch)?;
        let input = self.normed_or(shared.norm.as_ref(), input)?;
        self.dense(&shared.dense, input, branch)?;
        self.post_norm(shared.post_norm.as_ref(), branch)?;
        if let Some(gate) = &shared.gate {
            let (n, dim, factors) = (self.n, self.width(), self.slot(Slot::RouterLogits)?);
            self.linears(input, &[(gate, factors)])?;
            self.run(&Op::Activate { act: Activation::Sigmoid, x: factors, len: n })?;
            self.run(&Op::ScaleRows { x: branch, factors, rows: n, dim })?;
        }
        Ok(branch)
    }

    fn expert_linear(
        &mut self,
        linear: &Linear,
        f: &Experts,
        input: View,
        input_per_slot: bool,
        ids: View,
        out: View,
    ) -> Result<(), BackendError> {
        let op = Op::ExpertMatMul {
            input,
            input_per_slot,
            n: self.n,
            ids,
            used: f.router.used,
            experts: f.router.experts,
            weight: self.weight(linear)?,
            bias: self.view(linear.bias)?,
            scales: self.view(linear.scale)?,
            out,
        };
        self.run(&op)
    }
}
