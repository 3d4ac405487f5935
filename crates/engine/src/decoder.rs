//! The one decoder: turns an architecture description into operations on the devices that hold the layers.

use crate::Cancel;
use crate::checkpoint::States;
use crate::file::Weights;
use crate::input::Input;
use crate::ops::Ops;
use crate::site::Site;
use crate::streaming::Stream;
use crate::transfer::copy_cells;
use backend::{BackendError, Op};
use model::{Layout, Model, Slot};
use std::ops::Range;

/// Why a step did not end.
#[derive(Debug)]
pub(crate) enum StepError {
    Cancelled,
    Host(BackendError),
    Accelerator(BackendError),
}

/// Everything that a step reads and that does not change during it.
pub(crate) struct Context<'a> {
    pub model: &'a Model,
    pub layout: &'a Layout,
    pub file: &'a Weights,
    pub cancel: &'a Cancel,
    /// Which recurrent state is read, and which is written.
    pub states: &'a States,
}

/// The two places where layers can be.
pub(crate) struct Sites {
    pub host: Site,
    pub accelerator: Option<Site>,
}

impl Sites {
    /// The site that holds layer `index`.
    pub fn of(&mut self, index: usize) -> &mut Site {
        match &mut self.accelerator {
            Some(site) if site.has(index) => site,
            _ => &mut self.host,
        }
    }

    /// The accelerator, if it is meant and there, or the host.
    fn at(&mut self, accelerator: bool) -> &mut Site {
        match &mut self.accelerator {
            Some(site) if accelerator => site,
            _ => &mut self.host,
        }
    }

    /// The site that holds layer `index`, and the one that holds its routed experts if that is another.
    fn of_layer(&mut self, index: usize) -> (&mut Site, Option<&mut Site>) {
        match &mut self.accelerator {
            Some(site) if site.has(index) => {
                // What was lent is all there.
                let apart = !site.is_lent(index);
                (site, Some(&mut self.host).filter(|host| apart && host.has_guest(index)))
            }
            _ => (&mut self.host, None),
        }
    }

    pub fn on_accelerator(&self, index: usize) -> bool {
        self.accelerator.as_ref().is_some_and(|site| site.has(index))
    }
}

impl Context<'_> {
    /// Computes `tokens` at positions `start..`, and logits for the rows in `rows` (indices into `tokens`), which are
    /// given to `logits` in pieces of at most `logits_rows` rows x vocab_size, in order.
    ///
    /// Layers that `stream` has are computed on the accelerator, wherever they are.
    ///
    /// Running the same step again after an error is sound: it only writes cells from `start` on, and recurrent
    /// states that it does not read.
    pub fn step(
        &self,
        sites: &mut Sites,
        mut stream: Option<Stream<'_>>,
        tokens: &[u32],
        start: usize,
        rows: &[u32],
        logits: &mut dyn FnMut(&[f32]),
    ) -> Result<(), StepError> {
        let mut input = Input::new(self, &mut sites.host, tokens, start).map_err(StepError::Host)?;

        // Where the stream is now: None before it is on any device.
        let mut current: Option<bool> = None;
        for index in 0..=self.layout.block_count() {
            if self.cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            let last = index == self.layout.block_count();
            if last && rows.is_empty() {
                break;
            }
            let mut streamed = stream.as_mut().filter(|stream| stream.has(index));
            let target = sites.on_accelerator(index) || streamed.is_some();
            if let Some(stream) = &mut streamed {
                stream.begin(sites, index)?;
            }
            if current != Some(target) {
                if let Some(previous) = current {
                    // A layer that was lent is not where it was computed any more.
                    input.read_stream(sites.at(previous)).map_err(|error| wrap(previous, error))?;
                }
                input.write(sites.of(index)).map_err(|error| wrap(target, error))?;
                current = Some(target);
            }
            sites.of(index).begin(index).map_err(|error| wrap(target, error))?;
            if last {
                self.output(sites.of(index), rows, logits).map_err(|error| wrap(target, error))?;
                break;
            }
            let (site, experts_site) = sites.of_layer(index);
            let ops = Ops { context: self, site, experts_site, index, n: tokens.len(), start };
            let result = ops.layer(&self.model.layers[index]);
            result.map_err(|failed| wrap(target && !failed.elsewhere, failed.error))?;
            if let Some(stream) = &mut streamed {
                stream.end(sites, index)?;
            }
            self.update_copy(sites, index, start..start + tokens.len())?;
        }
        // What nobody has waited for runs while the host computes its layers of the next micro-batch.
        if let (Some(true), Some(site)) = (current, &mut sites.accelerator) {
            site.device.start().map_err(StepError::Accelerator)?;
        }
        Ok(())
    }

    /// Layers on the accelerator may read the cache of a layer on the host: their copy of it gets the new cells.
    fn update_copy(&self, sites: &mut Sites, index: usize, positions: Range<usize>) -> Result<(), StepError> {
        let Some(accelerator) = &mut sites.accelerator else { return Ok(()) };
        let Some(cache) = accelerator.copy(index) else { return Ok(()) };
        let bytes = &self.layout.layers[index];
        let Some(shape) = self.model.layers[index].mixer.as_ref().and_then(|mixer| mixer.part.cache()) else {
            return Ok(());
        };
        let source = sites.host.cache(index).map_err(StepError::Host)?;
        let (from, to) = (&mut *sites.host.device, &mut *accelerator.device);
        copy_cells((from, source), (to, cache), &shape, &self.layout.params, bytes.cells, positions)
            .map_err(StepError::Accelerator)
    }

    fn output(&self, site: &mut Site, rows: &[u32], logits: &mut dyn FnMut(&[f32])) -> Result<(), BackendError> {
        let width = self.model.embedding_length;
        let piece = self.layout.params.logits_rows.max(1) as usize;
        // New memory for a whole vocabulary would cost more than to read it.
        let mut values = std::mem::take(&mut site.logits);
        values.resize(piece.min(rows.len()) * self.model.vocab_size, 0.0);
        for rows in rows.chunks(piece) {
            let n = rows.len();
            let mut ops =
                Ops { context: self, site, experts_site: None, index: self.layout.block_count(), n, start: 0 };
            let (hidden, selected) = (ops.slot(Slot::Hidden)?, ops.slot(Slot::Selected)?);
            let out = ops.slot(Slot::Logits)?;
            ops.run(&Op::Gather { input: hidden, rows, dim: self.model.stream_length(), out: selected })?;
            let selected = match &self.model.output.merge {
                Some(merge) => ops.merge(merge, selected)?,
                None => selected,
            };
            ops.norm(&self.model.output.norm, selected, n * width, selected)?;
            ops.linears(selected, &[(&self.model.output.weight, out)])?;
            let count = n * self.model.vocab_size;
            ops.scale(out, self.model.output.scale, count)?;
            if self.model.output.softcap != 0.0 {
                ops.run(&Op::Softcap { x: out, cap: self.model.output.softcap, len: count })?;
            }
            site.device.read(out.buffer, 0, bytemuck::cast_slice_mut(&mut values[..count]))?;
            logits(&values[..count]);
        }
        if rows.len() <= KEPT_ROWS {
            site.logits = values;
        }
        Ok(())
    }
}

/// Rows of logits whose memory is kept: what generating takes, guesses included.
const KEPT_ROWS: usize = 16;

fn wrap(accelerator: bool, error: BackendError) -> StepError {
    if accelerator { StepError::Accelerator(error) } else { StepError::Host(error) }
}
