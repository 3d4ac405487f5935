//! A real header with every byte damaged in turn: an error or a usable header, never a panic.

#![allow(clippy::unwrap_used)]

use gguf::{Gguf, GgufError, GgufWriter, Strings, Value};
use proptest::prelude::*;
use quant::GgmlType;

fn sample() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "llama").unwrap().alignment(64).unwrap();
    writer.set("llama.block_count", 2u32).unwrap().set("llama.rope.freq_base", 10_000f32).unwrap();
    writer.set("tokenizer.ggml.add_bos_token", true).unwrap();
    writer.set("tokenizer.ggml.tokens", Strings::from_iter(["<unk>", "a", "\u{2581}b", ""])).unwrap();
    writer.set("tokenizer.ggml.scores", [0f32, -1.0, -2.5, 0.0].as_slice()).unwrap();
    let nested = gguf::Array::Arrays(vec![[1i32, 2].as_slice().into(), [3i32].as_slice().into()]);
    writer.set("nested", Value::Array(nested)).unwrap();
    writer.tensor("token_embd.weight", GgmlType::F32, &[8, 4]).unwrap();
    writer.tensor("blk.0.ffn_down.weight", GgmlType::Q4_K, &[256, 2]).unwrap();
    writer.tensor("blk.0.ffn_up_exps.weight", GgmlType::F16, &[4, 3, 2]).unwrap();
    let mut out = writer.start(Vec::new()).unwrap();
    for len in [128, 288, 48] {
        out.write(&vec![0x5a; len]).unwrap();
    }
    out.finish().unwrap()
}

/// What every parsed header promises.
fn check(gguf: &Gguf, file_len: u64) {
    assert!(gguf.alignment.is_power_of_two());
    let mut ranges = Vec::new();
    for tensor in &gguf.tensors {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        assert!((1..=4).contains(&tensor.shape.len()) && !tensor.shape.contains(&0));
        let row = tensor.ty.row_bytes(tensor.shape[0] as usize).unwrap() as u64;
        assert_eq!(tensor.bytes, row * tensor.rows());
        assert_eq!(tensor.elements(), tensor.shape[0] * tensor.rows());
        assert!(tensor.offset % gguf.alignment == 0 && tensor.offset >= gguf.data_offset);
        assert!(tensor.end() <= file_len);
        ranges.push((tensor.offset, tensor.end()));
    }
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    assert!(gguf.tensor_bytes() <= file_len);
    for (key, value) in gguf.metadata.iter() {
        assert_eq!(format!("{:?}", gguf.metadata.get(key)), format!("{:?}", Some(value)));
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
        }
    }
}

/// Parses damaged bytes as a file of their own and as the beginning of a longer one.
fn survive(bytes: &[u8]) {
    for file_len in [bytes.len() as u64, bytes.len() as u64 + (1 << 40), u64::MAX] {
        match Gguf::parse(bytes, file_len) {
            Ok(gguf) => check(&gguf, file_len),
            Err(GgufError::Incomplete { needed_at_least }) => {
                assert!(needed_at_least > bytes.len() as u64 && needed_at_least <= file_len);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn every_flipped_byte_is_survived() {
    let sample = sample();
    let header = Gguf::parse(&sample, sample.len() as u64).unwrap();
    check(&header, sample.len() as u64);
    assert_eq!(header.tensors.len(), 3);
    for position in 0..header.data_offset as usize {
        for mask in [0x01, 0x04, 0x08, 0x10, 0x40, 0x80, 0xff] {
            let mut damaged = sample.clone();
            damaged[position] ^= mask;
            survive(&damaged);
        }
    }
}

#[test]
fn every_truncation_is_survived() {
    let sample = sample();
    for len in 0..sample.len() {
        survive(&sample[..len]);
        let error = Gguf::parse(&sample[..len], len as u64).err();
        let cut = |e: &GgufError| matches!(e, GgufError::Truncated { .. } | GgufError::TensorBeyondFile { .. });
        // Only the padding after the last tensor may be missing.
        assert!(error.as_ref().is_some_and(cut) || (error.is_none() && len >= sample.len() - 16), "{len}: {error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn random_damage_is_survived(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut damaged = sample();
        for (index, byte) in edits {
            let position = index.index(damaged.len());
            damaged[position] = byte;
        }
        survive(&damaged);
    }

    #[test]
    fn large_numbers_anywhere_are_survived(index: prop::sample::Index, number in prop_oneof![
        Just(u64::MAX), Just(1 << 63), Just((1 << 63) - 1), Just(1 << 32), Just(u64::from(u32::MAX)), any::<u64>(),
    ]) {
        let mut damaged = sample();
        let position = index.index(damaged.len() - 8);
        damaged[position..position + 8].copy_from_slice(&number.to_le_bytes());
        survive(&damaged);
    }

    #[test]
    fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        survive(&noise);
        survive(&[b"GGUF\x03\0\0\0".as_slice(), &noise].concat());
    }
}
