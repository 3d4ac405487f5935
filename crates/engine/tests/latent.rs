//! Latent attention in its two forms is the same attention.

mod common;

use backend_cpu::Precision;
use common::{load_file, options, prompt};
use engine::{Cancel, LoadOptions, Positions};
use gguf::{Gguf, GgufWriter};
use quant::GgmlType;
use std::collections::BTreeMap;
use test_models::ModelSpec;

/// Sizes of the tiny DeepSeek 2.
const HEADS: usize = 4;
const NOPE: usize = 32;
const DIM_V: usize = 32;
const RANK: usize = 32;

/// The same model as converters wrote it before they split the expansion by use.
fn joined(file: &[u8]) -> Vec<u8> {
    let gguf = Gguf::parse(file, file.len() as u64).expect("a valid file");
    let mut tensors: BTreeMap<String, (Vec<u64>, Vec<u8>)> = BTreeMap::new();
    for tensor in &gguf.tensors {
        let bytes = file[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize].to_vec();
        tensors.insert(tensor.name.clone(), (tensor.shape.clone(), bytes));
    }
    for layer in 0..4 {
        let mut take = |part: &str| tensors.remove(&format!("blk.{layer}.{part}.weight")).expect("a tensor").1;
        let (k_b, v_b) = (take("attn_k_b"), take("attn_v_b"));
        let mut rows = Vec::new();
        for head in 0..HEADS {
            // [rank, nope] turned to [nope, rank].
            for i in 0..NOPE {
                (0..RANK).for_each(|r| rows.extend(&k_b[4 * ((head * RANK + r) * NOPE + i)..][..4]));
            }
            rows.extend(&v_b[4 * head * DIM_V * RANK..][..4 * DIM_V * RANK]);
        }
        let shape = vec![RANK as u64, (HEADS * (NOPE + DIM_V)) as u64];
        tensors.insert(format!("blk.{layer}.attn_kv_b.weight"), (shape, rows));
    }
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata.iter() {
        writer.set(key, value.clone()).expect("a key");
    }
    for (name, (shape, _)) in &tensors {
        writer.tensor(name, GgmlType::F32, shape).expect("a tensor");
    }
    let mut out = writer.start(Vec::new()).expect("a header");
    for (_, bytes) in tensors.values() {
        out.write(bytes).expect("memory");
    }
    out.finish().expect("memory")
}

fn logits(file: &[u8]) -> Vec<f32> {
    let options = LoadOptions { kv_type_k: GgmlType::F32, kv_type_v: GgmlType::F32, ..options(64, 0) };
    let (engine, _) = load_file(file, options, None, |_| {}, Precision::Exact).expect("a model");
    let mut rows = Vec::new();
    engine.logits(&prompt(40), Positions::All, &Cancel::new(), &mut |row| rows.extend(row)).expect("logits");
    rows
}

#[test]
fn joined_and_absorbed_expansions_give_the_same_logits() {
    let file = ModelSpec::deepseek2().build();
    for (a, b) in logits(&file).iter().zip(logits(&joined(&file))) {
        assert!((a - b).abs() <= 1e-4, "{a} and {b}");
    }
}
