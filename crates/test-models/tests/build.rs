//! The models that come out are valid, complete and the same every time.

#![allow(clippy::unwrap_used)]

use gguf::{Gguf, merge_splits};
use test_models::{GgmlType, ModelSpec};

fn parse(file: &[u8]) -> Gguf {
    Gguf::parse(file, file.len() as u64).unwrap()
}

fn families() -> Vec<ModelSpec> {
    vec![
        ModelSpec::llama(),
        ModelSpec::llama3(),
        ModelSpec::mixtral(),
        ModelSpec::qwen2(),
        ModelSpec::qwen3(),
        ModelSpec::qwen3moe(),
    ]
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
}

#[test]
fn every_family_builds_and_is_deterministic() {
    for spec in families() {
        let file = spec.build();
        let gguf = parse(&file);
        assert_eq!(gguf.architecture(), Some(spec.arch.as_str()));
        assert_eq!(gguf.metadata.u64(&format!("{}.block_count", spec.arch)), Some(2));
        assert_eq!(gguf.tensor("output.weight").is_none(), spec.tied);
        assert_eq!(gguf.tensor("blk.1.ffn_gate_exps.weight").is_some(), spec.experts.is_some());
        assert_eq!(gguf.tensor("blk.0.attn_q_norm.weight").is_some(), spec.qk_norm);
        assert_eq!(gguf.tensor("blk.0.attn_k.bias").is_some(), spec.qkv_bias);
        assert_eq!(file, spec.build());
        assert_ne!(file, ModelSpec { seed: 2, ..spec }.build());
    }
}

#[test]
fn header_is_the_beginning_of_the_file() {
    for spec in families() {
        let (header, file_len) = spec.header();
        let file = spec.build();
        assert_eq!(file_len, file.len() as u64);
        assert_eq!(header, file[..header.len()]);
        assert_eq!(Gguf::parse(&header, file_len).unwrap(), parse(&file));
    }
}

#[test]
fn weights_have_the_asked_distribution() {
    let file = ModelSpec::llama().build();
    let gguf = parse(&file);
    let deviation = |name: &str| {
        let tensor = gguf.tensor(name).unwrap();
        let values = f32s(&file[tensor.offset as usize..tensor.end() as usize]);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt())
    };
    let (mean, sd) = deviation("blk.0.attn_q.weight");
    assert!(mean.abs() < 0.01 && (sd - 0.125).abs() < 0.01, "{mean} {sd}");
    let (mean, sd) = deviation("blk.1.ffn_norm.weight");
    assert!((mean - 1.0).abs() < 0.05 && (sd - 0.1).abs() < 0.05, "{mean} {sd}");
}

#[test]
fn precisions_hold_the_same_model() {
    let exact = ModelSpec::llama().build();
    let half = ModelSpec { ty: GgmlType::F16, ..ModelSpec::llama() }.build();
    let (exact_header, half_header) = (parse(&exact), parse(&half));
    let a = exact_header.tensor("blk.1.ffn_up.weight").unwrap();
    let b = half_header.tensor("blk.1.ffn_up.weight").unwrap();
    assert_eq!((a.ty, b.ty), (GgmlType::F32, GgmlType::F16));
    let wide = f32s(&exact[a.offset as usize..a.end() as usize]);
    let narrow = &half[b.offset as usize..b.end() as usize];
    for (x, y) in wide.iter().zip(narrow.chunks_exact(2)) {
        assert_eq!(half::f16::from_f32(*x).to_le_bytes(), y);
    }
    assert_eq!(half_header.tensor("output_norm.weight").unwrap().ty, GgmlType::F32);
}

#[test]
fn splits_merge_into_the_whole() {
    let spec = ModelSpec::qwen3moe();
    let whole_file = spec.build();
    let whole = parse(&whole_file);
    for parts in [2, 3, 7] {
        let files = spec.build_split(parts);
        let merged = merge_splits(files.iter().map(|file| parse(file)).collect()).unwrap();
        assert_eq!(merged.tensors.len(), whole.tensors.len());
        for tensor in &whole.tensors {
            let part = merged.tensor(&tensor.name).unwrap();
            let data = &files[part.shard as usize][part.offset as usize..part.end() as usize];
            assert_eq!(data, &whole_file[tensor.offset as usize..tensor.end() as usize], "{}", tensor.name);
        }
    }
}

#[test]
fn real_shapes_have_the_real_sizes() {
    // Llama 3.1 8B has 8,030,261,248 parameters; the 64 frequency factors are not counted among them.
    let (header, file_len) = ModelSpec::llama3_8b(GgmlType::Q4_K).header();
    let gguf = Gguf::parse(&header, file_len).unwrap();
    let parameters: u64 = gguf.tensors.iter().map(|tensor| tensor.elements()).sum();
    assert_eq!(parameters, 8_030_261_248 + 64);
    // Qwen3 30B A3B has 30,532,122,624.
    let (header, file_len) = ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K).header();
    let gguf = Gguf::parse(&header, file_len).unwrap();
    assert_eq!(gguf.tensors.iter().map(|tensor| tensor.elements()).sum::<u64>(), 30_532_122_624);
}

#[test]
fn every_quantized_type_comes_close_to_the_exact_weights() {
    let name = "blk.1.ffn_down.weight";
    let exact_file = ModelSpec::quantized(GgmlType::F32).build();
    let exact = f32s(&exact_file[range(&parse(&exact_file), name)]);
    for (ty, limit) in [
        (GgmlType::BF16, 0.01),
        (GgmlType::Q8_0, 0.01),
        (GgmlType::Q6_K, 0.03),
        (GgmlType::Q5_K, 0.05),
        (GgmlType::Q4_K, 0.1),
        (GgmlType::Q4_0, 0.15),
        (GgmlType::Q2_K, 0.4),
    ] {
        let file = ModelSpec::quantized(ty).build();
        let gguf = parse(&file);
        assert_eq!(gguf.tensor(name).unwrap().ty, ty);
        let mut values = vec![0f32; exact.len()];
        quant::dequantize_row(ty, &file[range(&gguf, name)], &mut values).unwrap();
        let error: f32 = exact.iter().zip(&values).map(|(x, y)| (x - y).powi(2)).sum();
        let relative = (error / exact.iter().map(|x| x * x).sum::<f32>()).sqrt();
        assert!(relative > 0.0 && relative <= limit, "{ty}: {relative}");
    }
}

fn range(gguf: &Gguf, name: &str) -> std::ops::Range<usize> {
    let tensor = gguf.tensor(name).unwrap();
    tensor.offset as usize..tensor.end() as usize
}
