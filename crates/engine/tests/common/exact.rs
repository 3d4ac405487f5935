//! Models in 64-bit floating point: tensors, and what all equations need.

#![allow(dead_code)] // every test uses a part of this

use super::{load, options};
use engine::{Cancel, LoadOptions, Positions};
use quant::GgmlType;
use std::collections::HashMap;
use test_models::ModelSpec;

const EPS: f64 = 1e-5;

/// A model's tensors as f64, rows first.
pub struct Weights {
    pub tensors: HashMap<String, (usize, Vec<f64>)>,
    pub layer: usize,
}

impl Weights {
    pub fn new(spec: &ModelSpec) -> Weights {
        let file = spec.build();
        let gguf = gguf::Gguf::parse(&file, file.len() as u64).expect("a valid file");
        let values = |tensor: &gguf::TensorInfo| {
            let bytes = &file[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize];
            bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
        };
        let tensors = gguf.tensors.iter().map(|t| (t.name.clone(), (t.shape[0] as usize, values(t))));
        Weights { tensors: tensors.collect(), layer: 0 }
    }

    pub fn of(&self, part: &str) -> &[f64] {
        &self.tensors[&format!("blk.{}.{part}", self.layer)].1
    }

    pub fn has(&self, part: &str) -> bool {
        self.tensors.contains_key(&format!("blk.{}.{part}", self.layer))
    }

    pub fn product(&self, part: &str, x: &[f64]) -> Vec<f64> {
        product(self.of(part), x)
    }

    pub fn norm(&self, part: &str, x: &[f64]) -> Vec<f64> {
        norm(x, self.of(part))
    }
}

pub fn product(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

pub fn norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + EPS).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

pub fn add(x: &mut [f64], y: &[f64], scale: f64) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * y);
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// The engine's logits of `tokens` are `expected`, with an f32 cache, to `tolerance`.
pub fn check(spec: &ModelSpec, tokens: &[u32], expected: &[f64], tolerance: f64) {
    check_between(spec, tokens, &[expected], tolerance);
}

/// The same where there are several results, between which the logits are.
pub fn check_between(spec: &ModelSpec, tokens: &[u32], expected: &[&[f64]], tolerance: f64) {
    let f32_cache = LoadOptions { kv_type_k: GgmlType::F32, kv_type_v: GgmlType::F32, ..options(64, 0) };
    let (engine, _) = load(spec, f32_cache, None).expect("a model");
    let mut at = 0;
    let mut row = |row: &[f32]| {
        for value in row {
            let (low, high) =
                expected.iter().fold((f64::MAX, f64::MIN), |(low, high), row| (low.min(row[at]), high.max(row[at])));
            let inside = f64::from(*value) >= low - tolerance && f64::from(*value) <= high + tolerance;
            assert!(inside, "{}: {value} is not from {low} to {high}", spec.arch);
            at += 1;
        }
    };
    engine.logits(tokens, Positions::All, &Cancel::new(), &mut row).expect("logits");
    assert!(expected.iter().all(|row| row.len() == at));
}
