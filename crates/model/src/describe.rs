//! Reads metadata and tensors of a header with checks, for the family files.

use crate::{Linear, Mixer, Model, ModelError, Tensor, families};
use backend::NormKind;
use gguf::Gguf;
use std::cell::RefCell;

/// Describes the model in a parsed header (all splits merged).
///
/// # Errors
/// An unknown architecture, missing or impossible metadata, missing tensors or tensors of the wrong shape.
pub fn describe(gguf: &Gguf) -> Result<Model, ModelError> {
    let architecture =
        gguf.metadata.str("general.architecture").ok_or(ModelError::MissingKey("general.architecture".into()))?;
    let family = families::find(architecture).ok_or_else(|| ModelError::UnknownArchitecture {
        found: architecture.chars().take(64).collect(),
        supported: supported_list(),
    })?;
    let header = Header { gguf, architecture, used: RefCell::new(vec![false; gguf.tensors.len()]) };
    let mut model = family(&header)?;
    check_sources(&model)?;
    let used = header.used.into_inner();
    model.unused_tensors =
        gguf.tensors.iter().zip(used).filter(|(_, used)| !used).map(|(tensor, _)| tensor.name.clone()).collect();
    Ok(model)
}

/// A cache that several layers read must come before them and have the shape that all of them mean.
fn check_sources(model: &Model) -> Result<(), ModelError> {
    let mixer = |index: usize| model.layers.get(index).and_then(|layer| layer.mixer.as_ref()).map(|mixer| &mixer.part);
    for index in 0..model.layers.len() {
        let (Some(source), Some(attention)) =
            (mixer(index).and_then(Mixer::cache_source), model.layers[index].attention())
        else {
            continue;
        };
        if source >= index || mixer(source).and_then(Mixer::cache) != Some(attention.cache_shape()) {
            return Err(ModelError::Unsupported(format!("layer {index} cannot read the cache of layer {source}")));
        }
    }
    Ok(())
}

fn supported_list() -> String {
    families::supported_architectures().collect::<Vec<_>>().join(", ")
}

/// A header seen through its architecture's prefix; remembers which tensors were asked for.
pub(crate) struct Header<'a> {
    pub gguf: &'a Gguf,
    pub architecture: &'a str,
    used: RefCell<Vec<bool>>,
}

/// The sizes nearly every family has.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub block_count: usize,
    pub embedding_length: usize,
    pub context_length: u32,
    pub vocab_size: usize,
    /// What norms divide by, and what keeps them from dividing by 0.
    pub norm: NormKind,
    pub eps: f32,
}

/// Limits on what a file may ask for; far above any model, far below what could overflow.
const MAX_LAYERS: u64 = 4096;
const MAX_WIDTH: u64 = 1 << 24;

impl Header<'_> {
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub fn u64_or(&self, name: &str) -> Option<u64> {
        self.gguf.metadata.u64(&self.key(name))
    }

    pub fn f32_or(&self, name: &str) -> Option<f32> {
        self.gguf.metadata.f32(&self.key(name))
    }

    pub fn str_or(&self, name: &str) -> Option<&str> {
        self.gguf.metadata.str(&self.key(name))
    }

    /// A count from 1 to `max`.
    pub fn count(&self, name: &str, max: u64) -> Result<usize, ModelError> {
        let value = self.u64_or(name).ok_or_else(|| ModelError::MissingKey(self.key(name)))?;
        self.checked(name, value, max)
    }

    pub fn checked(&self, name: &str, value: u64, max: u64) -> Result<usize, ModelError> {
        if value == 0 || value > max {
            return Err(self.bad_value(name, value, "its sensible range"));
        }
        Ok(value as usize)
    }

    /// A number that is the same for all layers or an array with one for each.
    pub fn layer_u64(&self, name: &str, layer: usize) -> Result<Option<u64>, ModelError> {
        if let Some(value) = self.u64_or(name) {
            return Ok(Some(value));
        }
        let Some(array) = self.gguf.metadata.array(&self.key(name)) else { return Ok(None) };
        let value = array.u64s().and_then(|values| values.get(layer).copied());
        value.map(Some).ok_or_else(|| ModelError::MissingKey(format!("{} for layer {layer}", self.key(name))))
    }

    /// The same for a count from 1 to `max`.
    pub fn layer_count(&self, name: &str, layer: usize, max: u64) -> Result<Option<usize>, ModelError> {
        self.layer_u64(name, layer)?.map(|value| self.checked(name, value, max)).transpose()
    }

    /// An array with a flag for each layer.
    pub fn layer_flag(&self, name: &str, layer: usize) -> Result<Option<bool>, ModelError> {
        let Some(array) = self.gguf.metadata.array(&self.key(name)) else { return Ok(None) };
        let flag = match array.bools() {
            Some(flags) => flags.get(layer).copied(),
            None => array.u64s().and_then(|values| values.get(layer).map(|value| *value != 0)),
        };
        flag.map(Some).ok_or_else(|| ModelError::MissingKey(format!("{} for layer {layer}", self.key(name))))
    }

    pub fn bool_or(&self, name: &str) -> Option<bool> {
        self.gguf.metadata.bool(&self.key(name))
    }

    /// An error about the value of a key.
    pub fn bad_value(&self, name: &str, value: impl ToString, allowed: &'static str) -> ModelError {
        ModelError::BadValue { key: self.key(name), value: value.to_string(), allowed }
    }

    /// A number from the metadata that must be finite and at least `min`.
    pub fn f32_at_least(&self, name: &str, default: f32, min: f32) -> Result<f32, ModelError> {
        let value = self.f32_or(name).unwrap_or(default);
        if !(value.is_finite() && value >= min) {
            return Err(self.bad_value(name, value, "the finite numbers it may be"));
        }
        Ok(value)
    }

    /// With norms of this kind, which is the family's matter: files of some have the keys of both.
    pub fn sizes(&self, norm: NormKind) -> Result<Sizes, ModelError> {
        let embedding_length = self.count("embedding_length", MAX_WIDTH)?;
        let embedding = self.find("token_embd.weight").ok_or(ModelError::MissingTensor("token_embd.weight".into()))?;
        let vocab_size = self.gguf.tensors[embedding].shape.get(1).copied().unwrap_or(0);
        if vocab_size == 0 || vocab_size > MAX_WIDTH {
            return Err(ModelError::BadShape {
                name: "token_embd.weight".into(),
                found: self.gguf.tensors[embedding].shape.clone(),
                expected: vec![embedding_length as u64, 0],
            });
        }
        let block_count = self.count("block_count", MAX_LAYERS)?;
        // Layers that predict further tokens come last and take no part in plain decoding.
        let extra = self.u64_or("nextn_predict_layers").unwrap_or(0);
        if extra >= block_count as u64 {
            return Err(self.bad_value("nextn_predict_layers", extra, "0 to block_count - 1"));
        }
        // Nemotron-H may have only the other key.
        let eps = match norm {
            NormKind::Rms if self.f32_or("attention.layer_norm_rms_epsilon").is_some() => {
                "attention.layer_norm_rms_epsilon"
            }
            NormKind::Rms | NormKind::Layer => "attention.layer_norm_epsilon",
        };
        Ok(Sizes {
            block_count: block_count - extra as usize,
            embedding_length,
            context_length: self.u64_or("context_length").unwrap_or(2048).clamp(1, u64::from(u32::MAX)) as u32,
            vocab_size: vocab_size as usize,
            norm,
            eps: self.f32_at_least(eps, 1e-5, 0.0)?,
        })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.gguf.tensor_index(name)
    }

    /// The dimensions that a tensor has in the file.
    pub fn shape(&self, name: &str) -> Option<&[u64]> {
        self.find(name).map(|index| self.gguf.tensors[index].shape.as_slice())
    }

    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Rows of a matrix in the file, for sizes that no metadata gives.
    pub fn rows(&self, name: &str) -> Result<usize, ModelError> {
        let shape = self.shape(name).ok_or_else(|| ModelError::MissingTensor(name.into()))?;
        match shape.get(1) {
            Some(rows) if (1..=MAX_WIDTH).contains(rows) => Ok(*rows as usize),
            _ => Err(ModelError::BadShape { name: name.into(), found: shape.to_vec(), expected: vec![shape[0], 1] }),
        }
    }

    fn take(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>, ModelError> {
        let Some(index) = self.find(name) else { return Ok(None) };
        let info = &self.gguf.tensors[index];
        // Trailing dimensions of 1 carry no meaning.
        let mut found = info.shape.as_slice();
        while found.len() > shape.len() && found.last() == Some(&1) {
            found = &found[..found.len() - 1];
        }
        let matches = found.len() <= shape.len()
            && shape.iter().enumerate().all(|(i, &want)| found.get(i).copied().unwrap_or(1) == want as u64);
        if !matches {
            return Err(ModelError::BadShape {
                name: name.into(),
                found: info.shape.clone(),
                expected: shape.iter().map(|&n| n as u64).collect(),
            });
        }
        self.used.borrow_mut()[index] = true;
        Ok(Some(Tensor {
            index,
            ty: info.ty,
            cols: shape[0],
            rows: shape.get(1).copied().unwrap_or(1),
            experts: shape.get(2).copied().unwrap_or(1),
            bytes: info.bytes,
            as_f32: false,
        }))
    }

    /// A tensor of exactly this shape (row length first), if the file has it.
    pub fn tensor_or(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>, ModelError> {
        self.take(name, shape)
    }

    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.take(name, shape)?.ok_or_else(|| ModelError::MissingTensor(name.into()))
    }

    /// A tensor that devices read as f32 (a norm weight, a bias, factors).
    pub fn vector_or(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>, ModelError> {
        use quant::GgmlType::{BF16, F16, F32};
        let Some(tensor) = self.take(name, shape)? else { return Ok(None) };
        if !matches!(tensor.ty, F32 | F16 | BF16) {
            return Err(ModelError::BadType { name: name.into(), ty: tensor.ty });
        }
        Ok(Some(Tensor { as_f32: true, ..tensor }))
    }

    pub fn vector(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.vector_or(name, shape)?.ok_or_else(|| ModelError::MissingTensor(name.into()))
    }

    /// `NAME.weight` [rows, cols] with `NAME.bias` and `NAME.scale` where the file has them.
    pub fn linear_or(&self, name: &str, rows: usize, cols: usize) -> Result<Option<Linear>, ModelError> {
        let Some(weight) = self.tensor_or(&format!("{name}.weight"), &[cols, rows])? else { return Ok(None) };
        let bias = self.vector_or(&format!("{name}.bias"), &[rows])?;
        // A vector of this name is a part of its own.
        let scale = format!("{name}.scale");
        let factor = self.shape(&scale).is_some_and(|shape| shape.iter().product::<u64>() == 1);
        let scale = if factor { self.vector_or(&scale, &[1])? } else { None };
        Ok(Some(Linear { bias, scale, ..Linear::whole(weight) }))
    }

    pub fn linear(&self, name: &str, rows: usize, cols: usize) -> Result<Linear, ModelError> {
        self.linear_or(name, rows, cols)?.ok_or_else(|| ModelError::MissingTensor(format!("{name}.weight")))
    }

    /// `NAME.weight` [experts, rows, cols] with biases [experts, rows] and scales [experts] where the file has them.
    pub fn expert_linear(&self, name: &str, experts: usize, rows: usize, cols: usize) -> Result<Linear, ModelError> {
        let weight = self.tensor(&format!("{name}.weight"), &[cols, rows, experts])?;
        let bias = self.vector_or(&format!("{name}.bias"), &[rows, experts])?;
        let scale = self.vector_or(&format!("{name}.scale"), &[experts])?;
        Ok(Linear { bias, scale, ..Linear::whole(weight) })
    }

    /// Sums over all tensors: (parameters, bytes).
    pub fn totals(&self) -> Result<(u64, u64), ModelError> {
        let mut parameters = 0u64;
        let mut bytes = 0u64;
        for tensor in &self.gguf.tensors {
            let count = tensor.shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
            parameters = count.and_then(|n| parameters.checked_add(n)).ok_or(ModelError::Overflow)?;
            bytes = bytes.checked_add(tensor.bytes).ok_or(ModelError::Overflow)?;
        }
        Ok((parameters, bytes))
    }
}
