//! Rows recorded from llama.cpp: two rows of 512 values per type, of quantized data and of random bits.

#![allow(clippy::unwrap_used)]

use quant::reference::{Difference, check_dequantizer, check_quantizer};
use quant::{
    GgmlType, activation_type, dequantize_row, dot_row, has_quantizer, quantize_cache_row, quantize_row, unpack,
};
use std::path::{Path, PathBuf};

struct Record {
    ty: GgmlType,
    /// "ref", "chunk", "imat", "cpu" (how it was quantized), or "rand" (random bits).
    kind: String,
    packed: Vec<u8>,
    values: Option<Vec<f32>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn floats(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixtures().join(name)).unwrap();
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn index() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("index.json")).unwrap()).unwrap()
}

fn records() -> Vec<Record> {
    let mut records = Vec::new();
    for entry in index()["types"].as_array().unwrap() {
        let ty = GgmlType::from_name(entry["type"].as_str().unwrap()).unwrap();
        for (kind, files) in entry["files"].as_object().unwrap() {
            records.push(Record {
                ty,
                kind: kind.clone(),
                packed: std::fs::read(fixtures().join(files["bin"].as_str().unwrap())).unwrap(),
                values: files["f32"].as_str().map(floats),
            });
        }
    }
    records
}

#[test]
fn the_type_table_agrees() {
    for entry in index()["types"].as_array().unwrap() {
        let ty = GgmlType::from_name(entry["type"].as_str().unwrap()).unwrap();
        assert_eq!(u64::from(ty.id()), entry["id"], "{ty}");
        assert_eq!(ty.block_size() as u64, entry["block_size"], "{ty}");
        assert_eq!(ty.type_size() as u64, entry["type_size"], "{ty}");
        assert_eq!(ty.row_bytes(512).unwrap() as u64, entry["row_bytes"], "{ty}");
        if ty != GgmlType::Q8_K {
            assert_eq!(Some(activation_type(ty)), GgmlType::from_name(entry["vec_dot_type"].as_str().unwrap()), "{ty}");
        }
    }
}

#[test]
fn every_type_dequantizes_bit_for_bit() {
    let mut types = std::collections::BTreeSet::new();
    for Record { ty, kind, packed, values } in records() {
        if let Some(values) = values {
            assert_eq!(check_dequantizer(ty, &packed, &values), Ok(()), "{ty} {kind}");
            types.insert(ty);
        }
    }
    assert_eq!(types.len(), 27, "types with recorded values");
}

#[test]
fn quantizers_reproduce_the_reference() {
    let (input, importance) = (floats("input.f32"), floats("imatrix.f32"));
    let mut checked = 0;
    for Record { ty, kind, packed, .. } in records() {
        if kind == "rand" || !has_quantizer(ty) {
            continue;
        }
        let importance = (kind == "imat").then_some(&importance[..]);
        assert_eq!(check_quantizer(ty, &input, 512, importance, &packed), Ok(()), "{ty} {kind}");
        checked += 1;
    }
    assert!(checked >= 45, "only {checked} records were checked");
}

/// "ref" rows of IQ4_NL are those of llama.cpp's run-time quantizer.
#[test]
fn cache_rows_reproduce_the_reference() {
    let input = floats("input.f32");
    let record = records().into_iter().find(|record| record.ty == GgmlType::IQ4_NL && record.kind == "ref").unwrap();
    let mut packed = vec![0; record.packed.len()];
    quantize_cache_row(GgmlType::IQ4_NL, &input, &mut packed).unwrap();
    assert_eq!(packed, record.packed);
}

/// The integer dot product of every weight type, also those that are not quantized here, with 8-bit activations.
#[test]
fn every_type_multiplies() {
    let input = &floats("input.f32")[..512];
    for Record { ty, kind, packed, values } in records() {
        let (Some(values), false) = (values, (kind == "rand" && ty == GgmlType::F16)) else { continue };
        let partner = activation_type(ty);
        let mut activations = vec![0; partner.row_bytes(512).unwrap()];
        quantize_row(partner, input, None, &mut activations).unwrap();
        let mut a = vec![0.0; 512];
        dequantize_row(partner, &activations, &mut a).unwrap();
        let row_bytes = ty.row_bytes(512).unwrap();
        for (weights, values) in packed.chunks(row_bytes).zip(values.chunks(512)) {
            let products = || values.iter().zip(&a).map(|(&w, &a)| f64::from(w) * f64::from(a));
            let (exact, magnitude) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
            let dot = f64::from(dot_row(ty, weights, &activations).unwrap());
            // Q8_1 has its sums in f16.
            let tolerance = if partner == GgmlType::Q8_1 { 2e-3 } else { 2e-6 } * magnitude;
            assert!((dot - exact).abs() <= tolerance, "{ty} {kind}: {dot} instead of {exact}, tolerance {tolerance}");
        }
    }
}

#[test]
fn a_difference_is_found() {
    let ty = GgmlType::Q4_0;
    let record = records().into_iter().find(|record| record.ty == ty && record.kind == "ref").unwrap();
    let mut values = record.values.unwrap();
    values[3] = f32::from_bits(values[3].to_bits() ^ 1);
    let difference = check_dequantizer(ty, &record.packed, &values).unwrap_err();
    assert!(matches!(difference, Difference::Values { count: 1, index: 3, .. }), "{difference}");

    let input = floats("input.f32");
    let mut packed = record.packed;
    packed[18] ^= 1;
    let difference = check_quantizer(ty, &input, 512, None, &packed).unwrap_err();
    assert_eq!(difference, Difference::Bytes { count: 1, total: 32, block: 1 });
}

/// FNV-1a of the lattices' values as gguf-py 0.19.0 expands them: the recorded rows do not touch every point.
#[test]
fn lattices_are_those_of_the_format() {
    let hash = |bytes: &mut dyn Iterator<Item = u8>| {
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    };
    let hash8 = |grid: &[u64]| hash(&mut grid.iter().flat_map(|point| point.to_le_bytes()));
    let hash4 = |grid: &[u32]| hash(&mut grid.iter().flat_map(|point| point.to_le_bytes()));
    let hashes = [
        hash8(&unpack::IQ2_XXS_GRID),
        hash8(&unpack::IQ2_XS_GRID),
        hash8(&unpack::IQ2_S_GRID),
        hash4(&unpack::IQ3_XXS_GRID),
        hash4(&unpack::IQ3_S_GRID),
        hash8(&unpack::IQ1_GRID),
    ];
    assert_eq!(
        hashes,
        [
            0xbb4e_e025_b5ac_6e8e,
            0xc9b1_ee61_e799_09bd,
            0x123e_dd38_a3b6_2b90,
            0xdfa5_dc83_d6a1_55d5,
            0xfa37_020c_25b4_4829,
            0x6703_ed86_3501_ae2e
        ]
    );
}
