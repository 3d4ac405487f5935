//! The types that tensors get, for whole models.

#![allow(clippy::unwrap_used)]

use gguf::{Gguf, GgufWriter};
use quant::GgmlType::{self, *};
use quantize::{Mix, Plan, QuantizeError};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// A header with these numbers and matrices (name, shape).
fn header(numbers: &[(&str, u32)], tensors: &[(String, &[u64])]) -> Gguf {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "llama").unwrap();
    for (key, value) in numbers {
        writer.set(&format!("llama.{key}"), *value).unwrap();
    }
    for (name, shape) in tensors {
        writer.tensor(name, F16, shape).unwrap();
    }
    Gguf::parse(&writer.header().unwrap(), writer.file_len().unwrap()).unwrap()
}

fn target(gguf: &Gguf, mix: Mix, name: &str) -> GgmlType {
    Plan::new(gguf, mix, None).unwrap().steps[gguf.tensor_index(name).unwrap()].to
}

/// `layers` times these matrices, with an embedding and, if wished, an output matrix.
fn model(numbers: &[(&str, u32)], layers: u32, matrices: &[(&str, &'static [u64])], output: bool) -> Gguf {
    let mut tensors: Vec<(String, &[u64])> = vec![("token_embd.weight".into(), &[512, 64])];
    if output {
        tensors.push(("output.weight".into(), &[512, 64]));
    }
    // Backwards: the rules go by layers, whatever the order in the file.
    for layer in (0..layers).rev() {
        tensors.extend(matrices.iter().map(|(name, shape)| (format!("blk.{layer}.{name}"), *shape)));
    }
    header(&[numbers, &[("block_count", layers)]].concat(), &tensors)
}

#[test]
fn q4_k_m_is_that_of_llama_cpp() {
    let source = weights::read_header(&fixture("rustdoc-tiny-F16.gguf")).unwrap();
    let theirs = weights::read_header(&fixture("rustdoc-tiny-Q4_K_M.gguf")).unwrap();
    let plan = Plan::new(&source, Mix::Q4_K_M, None).unwrap();
    for (tensor, step) in source.tensors.iter().zip(&plan.steps) {
        assert_eq!(step.to, theirs.tensor(&tensor.name).unwrap().ty, "{}", tensor.name);
    }
    assert_eq!(source.tensors.len(), theirs.tensors.len());
}

#[test]
fn first_and_last_layers_get_more() {
    let gguf = model(&[], 16, &[("attn_v.weight", &[512, 8]), ("ffn_down.weight", &[512, 8])], true);
    let more: Vec<u32> =
        (0..16).filter(|layer| target(&gguf, Mix::Q4_K_M, &format!("blk.{layer}.ffn_down.weight")) == Q6_K).collect();
    assert_eq!(more, [0, 1, 4, 7, 10, 13, 14, 15]);
    assert_eq!(target(&gguf, Mix::Q3_K_M, "blk.0.ffn_down.weight"), Q5_K);
    assert_eq!(target(&gguf, Mix::Q3_K_M, "blk.1.ffn_down.weight"), Q4_K);
    assert_eq!(target(&gguf, Mix::Q3_K_M, "blk.1.attn_v.weight"), Q5_K);
    assert_eq!(target(&gguf, Mix::Q3_K_M, "blk.2.attn_v.weight"), Q4_K);
    assert_eq!(target(&gguf, Mix::Q4_K_S, "blk.3.attn_v.weight"), Q5_K);
    assert_eq!(target(&gguf, Mix::IQ4_XS, "blk.1.ffn_down.weight"), Q5_K);
    assert_eq!(target(&gguf, Mix::IQ4_XS, "blk.2.ffn_down.weight"), IQ4_XS);
}

#[test]
fn sharing_and_experts_count() {
    let shared = [("attention.head_count", 32), ("attention.head_count_kv", 8)];
    let gguf = model(&shared, 4, &[("attn_v.weight", &[512, 8])], true);
    assert_eq!(target(&gguf, Mix::Q2_K, "blk.0.attn_v.weight"), Q4_K);
    assert_eq!(target(&gguf, Mix::IQ4_XS, "blk.0.attn_v.weight"), Q5_K);
    let matrices: &[(&str, &[u64])] =
        &[("attn_v.weight", &[512, 8]), ("attn_output.weight", &[512, 8]), ("ffn_up_exps.weight", &[512, 8, 8])];
    let gguf = model(&[("expert_count", 8)], 4, matrices, true);
    assert_eq!(target(&gguf, Mix::Q4_K_M, "blk.0.attn_v.weight"), Q8_0);
    assert_eq!(target(&gguf, Mix::Q4_K_M, "blk.0.attn_output.weight"), Q5_K);
    assert_eq!(target(&gguf, Mix::MXFP4, "blk.0.ffn_up_exps.weight"), MXFP4);
    assert_eq!(target(&gguf, Mix::MXFP4, "blk.0.attn_v.weight"), Q8_0);
}

#[test]
fn the_output_matrix_may_be_the_embedding() {
    let (tied, own) = (model(&[], 1, &[], false), model(&[], 1, &[], true));
    assert_eq!(target(&tied, Mix::Q4_K_M, "token_embd.weight"), Q6_K);
    assert_eq!(target(&own, Mix::Q4_K_M, "token_embd.weight"), Q4_K);
    assert_eq!(target(&own, Mix::IQ3_XXS, "output.weight"), Q5_K);
    assert_eq!(target(&own, Mix::IQ3_XXS, "token_embd.weight"), IQ3_S);
    assert_eq!(target(&own, Mix::Q8_0, "output.weight"), Q8_0);
    assert_eq!(target(&own, Mix::BF16, "output.weight"), BF16);
}

#[test]
fn small_tensors_stay_and_short_rows_fall_back() {
    let tensors: &[(String, &[u64])] = &[
        ("blk.0.attn_norm.weight".into(), &[512]),
        ("blk.0.ffn_gate_inp.weight".into(), &[512, 8]),
        ("blk.0.ssm_conv1d.weight".into(), &[4, 512]),
        ("blk.0.ffn_up.weight".into(), &[96, 8]),
        ("blk.0.ffn_gate.weight".into(), &[80, 8]),
    ];
    let gguf = header(&[], tensors);
    for (tensor, _) in &tensors[..3] {
        assert_eq!(target(&gguf, Mix::Q2_K, tensor), F16, "{tensor}");
    }
    let short = "blk.0.ffn_up.weight";
    let fallbacks =
        [(Mix::Q4_K_M, Q5_0), (Mix::Q5_K_S, Q5_1), (Mix::Q6_K, Q8_0), (Mix::Q2_K, IQ4_NL), (Mix::TQ1_0, Q4_0)];
    for (mix, ty) in fallbacks {
        assert_eq!(target(&gguf, mix, short), ty, "{}", mix.name());
    }
    assert_eq!(target(&gguf, Mix::Q4_0, "blk.0.ffn_gate.weight"), F16);
}

#[test]
fn hostile_headers_give_errors() {
    let plan = |gguf: &Gguf, mix| Plan::new(gguf, mix, None).err();
    let gguf = model(&[], 1, &[("attn_q.weight", &[512, 8])], true);
    assert!(matches!(plan(&gguf, Mix::IQ2_XXS), Some(QuantizeError::ImportanceNeeded { ty: IQ2_XXS, .. })));
    assert!(matches!(plan(&gguf, Mix::IQ1_S), Some(QuantizeError::ImportanceNeeded { ty: IQ1_S, .. })));
    let long = header(&[], &[("a.weight".into(), &[1 << 30, 2])]);
    assert!(matches!(plan(&long, Mix::Q8_0), Some(QuantizeError::RowTooLong { elements: 0x4000_0000, .. })));
    // Numbers that no model has.
    let odd = [("block_count", u32::MAX), ("attention.head_count", 7), ("attention.head_count_kv", 0)];
    let odd = header(&odd, &[("blk.99999999999999999999.ffn_down.weight".into(), &[512, 2])]);
    Mix::all().for_each(|mix| drop(Plan::new(&odd, mix, None)));
    let writer = GgufWriter::new();
    let empty = Gguf::parse(&writer.header().unwrap(), writer.file_len().unwrap()).unwrap();
    assert!(matches!(plan(&empty, Mix::Q8_0), Some(QuantizeError::NotAModel)));
}
