//! The one decoder: turns an architecture description into operations on the devices that hold the layers.

use crate::Cancel;
use crate::checkpoint::States;
use crate::file::Weights;
use crate::input::Input;
use crate::ops::Ops;
use crate::site::Site;
use crate::sites::{Fault, Sites};
use crate::streaming::Stream;
use backend::{BackendError, Op};
use model::{Layout, Model, Place, Slot};

/// Why a step did not end.
#[derive(Debug)]
pub(crate) enum StepError {
    Cancelled,
    Fault(Fault),
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

impl Context<'_> {
    /// Computes `tokens` at positions `start..`, and logits for the rows in `rows` (indices into `tokens`), which are
    /// given to `logits` in pieces of at most `logits_rows` rows x vocab_size, in order.
    ///
    /// Layers that `stream` has are computed on its accelerator, wherever they are.
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
        let input = Input::new(self, &mut sites.host, tokens, start);
        let input = input.map_err(|error| wrap(Place::Host, error))?;

        // Where the stream is now: None before it is on any device.
        let mut current: Option<Place> = None;
        let mut left: Vec<Place> = Vec::new();
        for index in 0..=self.layout.block_count() {
            if self.cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            let last = index == self.layout.block_count();
            if last && rows.is_empty() {
                break;
            }
            let mut streamed = stream.as_mut().filter(|stream| stream.has(index));
            let target = streamed.as_ref().map_or(sites.place(index), |stream| stream.place());
            if let Some(stream) = &mut streamed {
                stream.begin(sites, index).map_err(StepError::Fault)?;
            }
            if current != Some(target) {
                match current {
                    None => input.begin(sites.of(index)).map_err(|error| wrap(target, error))?,
                    // By place: a layer that was lent is not where it was computed any more.
                    Some(previous) => {
                        let (from, to) = sites.pair(previous, target).ok_or_else(|| gone(previous))?;
                        input.cross(from, to).map_err(StepError::Fault)?;
                        left.push(previous);
                    }
                }
                current = Some(target);
            }
            sites.of(index).begin(index).map_err(|error| wrap(target, error))?;
            if last {
                self.output(sites.of(index), rows, logits).map_err(|error| wrap(target, error))?;
                // What came from one that had failed is nothing. It has ended: nobody waits here.
                for place in left {
                    let site = sites.at(place).ok_or_else(|| gone(place))?;
                    site.device.finish().map_err(|error| wrap(place, error))?;
                }
                break;
            }
            let (site, experts_site) = sites.of_layer(index);
            let ops = Ops { context: self, site, experts_site, index, n: tokens.len(), start };
            let result = ops.layer(&self.model.layers[index]);
            result.map_err(|failed| wrap(if failed.elsewhere { Place::Host } else { target }, failed.error))?;
            if let Some(stream) = &mut streamed {
                stream.end(sites, index).map_err(StepError::Fault)?;
            }
            let positions = start..start + tokens.len();
            sites.update_copies(index, self.model, self.layout, positions).map_err(StepError::Fault)?;
        }
        // What nobody has waited for runs while the host computes its layers of the next micro-batch.
        if let Some(place @ Place::Accelerator(_)) = current
            && let Some(site) = sites.at(place)
        {
            site.device.start().map_err(|error| wrap(place, error))?;
        }
        Ok(())
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

fn gone(place: Place) -> StepError {
    wrap(place, BackendError::Lost { device: "an accelerator".into(), detail: "it is not there".into() })
}

fn wrap(place: Place, error: BackendError) -> StepError {
    StepError::Fault(Fault::at(place, error))
}
