//! What goes into the first layer and with the stream from device to device: embeddings, positions, per-layer inputs.

use crate::decoder::Context;
use crate::site::Site;
use crate::sites::Fault;
use crate::transfer::copy_bytes;
use backend::{BackendError, Linear as Product, Op, View};
use model::{AltUp, Linear, Mixer, Model, PerLayerInput, Slot, Temperature};

/// The rows of one step, in host memory.
pub(crate) struct Input {
    /// The residual stream before the first layer, f32 [n, parts, embedding_length].
    hidden: Vec<f32>,
    /// The same for all layers: where it goes, and its bytes.
    constants: Vec<(Slot, Vec<u8>)>,
}

impl Input {
    pub fn new(context: &Context<'_>, host: &mut Site, tokens: &[u32], start: usize) -> Result<Input, BackendError> {
        let model = context.model;
        let width = model.embedding_length;
        let mut hidden = vec![0f32; tokens.len() * width];
        for (token, row) in tokens.iter().zip(hidden.chunks_exact_mut(width)) {
            context.file.embedding(&model.token_embedding, *token, row)?;
        }
        if model.embedding_scale != 1.0 {
            hidden.iter_mut().for_each(|value| *value *= model.embedding_scale);
        }
        let positions = start..start + tokens.len();
        let mut constants = vec![(Slot::Positions, positions.clone().flat_map(|p| (p as u32).to_le_bytes()).collect())];
        if let Some(temperature) = temperature(model) {
            let factors = positions.flat_map(|p| temperature.at(p).to_le_bytes()).collect();
            constants.push((Slot::Temperatures, factors));
        }
        if let Some(heads) = latent_heads(model) {
            let ids = tokens.iter().flat_map(|_| (0..heads as u32).flat_map(u32::to_le_bytes)).collect();
            constants.push((Slot::HeadIds, ids));
        }
        if let Some(input) = &model.per_layer_input {
            let values = per_layer(context, host, input, tokens, &hidden)?;
            constants.push((Slot::PerLayer, to_bytes(&values)));
        }
        if let Some(alt_up) = &model.alt_up {
            hidden = expand(host, alt_up, &hidden, width)?;
        }
        Ok(Input { hidden, constants })
    }

    /// The stream begins on this device.
    pub fn begin(&self, to: &mut Site) -> Result<(), BackendError> {
        let stream = to.slot(Slot::Hidden)?;
        to.device.write(stream.buffer, 0, &to_bytes(&self.hidden))?;
        self.write_constants(to)
    }

    /// The stream goes on on another device. What does not depend on the one before goes there first.
    pub fn cross(&self, from: &mut Site, to: &mut Site) -> Result<(), Fault> {
        let stream = |site: &Site| site.slot(Slot::Hidden).map_err(|error| Fault::at(site.place, error));
        let (source, target) = (stream(from)?.buffer, stream(to)?.buffer);
        self.write_constants(to).map_err(|error| Fault::at(to.place, error))?;
        copy_bytes(from, source, to, target, 0..self.hidden.len() as u64 * 4)
    }

    fn write_constants(&self, site: &mut Site) -> Result<(), BackendError> {
        for (slot, bytes) in &self.constants {
            let view = site.slot(*slot)?;
            site.device.write(view.buffer, 0, bytes)?;
        }
        Ok(())
    }
}

/// All layers of a model have the same.
fn temperature(model: &Model) -> Option<Temperature> {
    model.layers.iter().find_map(|layer| match layer.mixer.as_ref().map(|mixer| &mixer.part) {
        Some(Mixer::Attention(attention)) => attention.temperature,
        Some(Mixer::Latent(latent)) => latent.temperature,
        _ => None,
    })
}

fn latent_heads(model: &Model) -> Option<usize> {
    model.layers.iter().find_map(|layer| match layer.mixer.as_ref().map(|mixer| &mixer.part) {
        Some(Mixer::Latent(latent)) => Some(latent.head_count),
        _ => None,
    })
}

/// [`PerLayerInput`] for `tokens` with these embeddings, f32 [layers, n, dim].
fn per_layer(
    context: &Context<'_>,
    host: &mut Site,
    input: &PerLayerInput,
    tokens: &[u32],
    embedded: &[f32],
) -> Result<Vec<f32>, BackendError> {
    let (n, all, dim) = (tokens.len(), input.projection.rows, input.dim);
    let factor = 1.0 / (context.model.embedding_length as f32).sqrt();
    let out = project(host, &input.projection, factor, embedded, n)?;
    let weight = host.input_view(input.norm.weight)?;
    let (kind, eps, rows) = (input.norm.kind, input.norm.eps, n * all / dim);
    host.device.run(&Op::Norm { kind, input: out, rows, dim, eps, weight, bias: None, out })?;
    let projected = read(host, out, n * all)?;
    let mut row = vec![0f32; all];
    let mut values = vec![0f32; n * all];
    for (token, (id, projected)) in tokens.iter().zip(projected.chunks_exact(all)).enumerate() {
        context.file.embedding(&input.embedding, *id, &mut row)?;
        for (layer, (own, projected)) in row.chunks_exact(dim).zip(projected.chunks_exact(dim)).enumerate() {
            let out = &mut values[(layer * n + token) * dim..][..dim];
            for (out, (own, projected)) in out.iter_mut().zip(own.iter().zip(projected)) {
                *out = (projected + own * (dim as f32).sqrt()) * std::f32::consts::FRAC_1_SQRT_2;
            }
        }
    }
    Ok(values)
}

/// The parts of the stream, f32 [n, parts, width]: the embedding, then its projections, which are given its length.
fn expand(host: &mut Site, alt_up: &AltUp, embedded: &[f32], width: usize) -> Result<Vec<f32>, BackendError> {
    let (n, all) = (embedded.len() / width, alt_up.expansion.rows);
    let out = project(host, &alt_up.expansion, 1.0, embedded, n)?;
    let projected = read(host, out, n * all)?;
    let length = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let mut stream = Vec::with_capacity(n * (all + width));
    for (row, others) in embedded.chunks_exact(width).zip(projected.chunks_exact(all)) {
        stream.extend(row);
        for other in others.chunks_exact(width) {
            let own = length(other);
            let factor = if own == 0.0 { 0.0 } else { (length(row) / own) as f32 };
            stream.extend(other.iter().map(|x| x * factor));
        }
    }
    Ok(stream)
}

/// `factor` times a product of the embeddings, on the host.
fn project(host: &mut Site, linear: &Linear, factor: f32, embedded: &[f32], n: usize) -> Result<View, BackendError> {
    let (input, out) = (host.slot(Slot::Embedded)?, host.slot(Slot::Projected)?);
    host.device.write(input.buffer, 0, &to_bytes(embedded))?;
    let product = Product { weight: host.input_weight(linear)?, bias: None, scale: factor, out };
    host.device.run(&Op::MatMul { input, n, products: &[product] })?;
    Ok(out)
}

fn read(host: &mut Site, view: View, len: usize) -> Result<Vec<f32>, BackendError> {
    let mut bytes = vec![0u8; len * 4];
    host.device.read(view.buffer, 0, &mut bytes)?;
    let mut values = vec![0f32; len];
    from_bytes(&bytes, &mut values);
    Ok(values)
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn from_bytes(bytes: &[u8], values: &mut [f32]) {
    for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(4)) {
        *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}
