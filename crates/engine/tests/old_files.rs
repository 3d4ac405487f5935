//! Files of earlier converters keep some matrices together: the same model.

mod common;

use backend_cpu::Precision;
use common::{load_file, options, prompt};
use engine::{Cancel, LoadOptions, Positions};
use gguf::{Gguf, GgufWriter};
use quant::GgmlType;
use std::collections::BTreeMap;
use test_models::ModelSpec;

/// Tensors by name: shape and f32 bytes.
type Tensors = BTreeMap<String, (Vec<u64>, Vec<u8>)>;

/// The file with changed tensors.
fn rewritten(file: &[u8], change: impl Fn(&mut Tensors)) -> Vec<u8> {
    let gguf = Gguf::parse(file, file.len() as u64).expect("a valid file");
    let data = |t: &gguf::TensorInfo| file[t.offset as usize..(t.offset + t.bytes) as usize].to_vec();
    let mut tensors: Tensors = gguf.tensors.iter().map(|t| (t.name.clone(), (t.shape.clone(), data(t)))).collect();
    change(&mut tensors);
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

/// The expansion of latent attention, before it was split by use.
fn join_expansion(tensors: &mut Tensors, layer: usize) {
    const HEADS: usize = 4;
    const NOPE: usize = 32;
    const DIM_V: usize = 32;
    const RANK: usize = 64;
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

/// The input of the delta rule, key head by key head.
fn join_key_heads(tensors: &mut Tensors, layer: usize) {
    const HEADS_K: usize = 2;
    const DIM: usize = 32;
    const WIDTH: usize = 64;
    let mut take = |part: &str| tensors.remove(&format!("blk.{layer}.{part}.weight")).expect("a tensor").1;
    let (qkv, z) = (take("attn_qkv"), take("attn_gate"));
    let rows = |matrix: &[u8], first: usize, count: usize| matrix[4 * first * WIDTH..][..4 * count * WIDTH].to_vec();
    let mut all = Vec::new();
    for head in 0..HEADS_K {
        all.extend(rows(&qkv, head * DIM, DIM));
        all.extend(rows(&qkv, (HEADS_K + head) * DIM, DIM));
        all.extend(rows(&qkv, (2 * HEADS_K + 2 * head) * DIM, 2 * DIM));
        all.extend(rows(&z, 2 * head * DIM, 2 * DIM));
    }
    let shape = vec![WIDTH as u64, (HEADS_K * 6 * DIM) as u64];
    tensors.insert(format!("blk.{layer}.ssm_in.weight"), (shape, all));
}

fn logits(file: &[u8]) -> Vec<f32> {
    let options = LoadOptions { kv_type_k: GgmlType::F32, kv_type_v: GgmlType::F32, ..options(64, 0) };
    let (engine, _) = load_file(file, options, None, |_| {}, Precision::Exact).expect("a model");
    let mut rows = Vec::new();
    engine.logits(&prompt(40), Positions::All, &Cancel::new(), &mut |row| rows.extend(row)).expect("logits");
    rows
}

#[track_caller]
fn assert_same(file: &[u8], old: &[u8]) {
    assert_ne!(file, old);
    for (a, b) in logits(file).iter().zip(logits(old)) {
        assert!((a - b).abs() <= 1e-4, "{a} and {b}");
    }
}

#[test]
fn joined_and_absorbed_expansions_give_the_same_logits() {
    let file = ModelSpec::deepseek2().build();
    assert_same(&file, &rewritten(&file, |tensors| (0..4).for_each(|layer| join_expansion(tensors, layer))));
}

#[test]
fn inputs_by_key_head_give_the_same_logits() {
    let file = ModelSpec::qwen3next().build();
    assert_same(&file, &rewritten(&file, |tensors| (0..3).for_each(|layer| join_key_heads(tensors, layer))));
}
