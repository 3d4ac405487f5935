//! What holds for any input: no panic on hostile bits, typed errors for wrong lengths, dot products that agree with the
//! dequantized rows.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use quant::{
    GgmlType, QuantError, activation_type, dequantize_row, dot_row, dot_row_f32, has_quantizer, needs_importance,
    quantize_cache_row, quantize_row,
};

/// A row length that is whole in blocks of every type.
const COLUMNS: usize = 512;

fn any_type() -> impl Strategy<Value = GgmlType> {
    proptest::sample::select(GgmlType::all().collect::<Vec<_>>())
}

fn quantizable() -> impl Strategy<Value = GgmlType> {
    proptest::sample::select(GgmlType::all().filter(|&ty| has_quantizer(ty)).collect::<Vec<_>>())
}

fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), len)
}

/// Magnitudes at which the scales of all types are normal f16 numbers, and within NVFP4's range.
fn normal_row() -> impl Strategy<Value = Vec<f32>> {
    (proptest::collection::vec(-1.0f32..1.0, COLUMNS), -4i32..12)
        .prop_map(|(row, power)| row.into_iter().map(|x| x * 2f32.powi(power)).collect())
}

fn row_bytes(ty: GgmlType) -> usize {
    ty.row_bytes(COLUMNS).unwrap()
}

fn quantized(ty: GgmlType, row: &[f32]) -> Vec<u8> {
    let mut packed = vec![0; ty.row_bytes(row.len()).unwrap()];
    let ones = vec![1.0; row.len()];
    quantize_row(ty, row, needs_importance(ty).then_some(&ones[..]), &mut packed).unwrap();
    packed
}

fn dequantized(ty: GgmlType, packed: &[u8]) -> Vec<f32> {
    let mut row = vec![0.0; packed.len() / ty.type_size() * ty.block_size()];
    dequantize_row(ty, packed, &mut row).unwrap();
    row
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Any bits are some row; its address does not matter.
    #[test]
    fn random_bits_convert_and_multiply(
        (ty, weights, activations) in any_type().prop_flat_map(|ty| {
            (Just(ty), bytes(row_bytes(ty)), bytes(row_bytes(activation_type(ty))))
        }),
    ) {
        let row = dequantized(ty, &weights);
        let mut shifted = vec![0];
        shifted.extend_from_slice(&weights);
        let again = dequantized(ty, &shifted[1..]);
        prop_assert!(row.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()));
        let dot = dot_row(ty, &weights, &activations).unwrap();
        prop_assert_eq!(dot.to_bits(), dot_row(ty, &shifted[1..], &activations).unwrap().to_bits());
        dot_row_f32(ty, &weights, &row).unwrap();
    }

    /// NaN, infinities, denormals and huge values quantize to something.
    #[test]
    fn random_floats_quantize(
        ty in quantizable(),
        row in proptest::collection::vec(any::<u32>().prop_map(f32::from_bits), COLUMNS),
        weighted in any::<bool>(),
    ) {
        let mut packed = vec![0; row_bytes(ty)];
        quantize_row(ty, &row, (weighted || needs_importance(ty)).then_some(&row[..]), &mut packed).unwrap();
        dequantized(ty, &packed);
    }

    /// The integer dot product is the dot product of the dequantized rows, up to f32 rounding.
    #[test]
    fn dot_products_agree_with_dequantized_rows(ty in quantizable(), w in normal_row(), a in normal_row()) {
        let partner = activation_type(ty);
        let (weights, activations) = (quantized(ty, &w), quantized(partner, &a));
        let (w, a) = (dequantized(ty, &weights), dequantized(partner, &activations));
        let products = || w.iter().zip(&a).map(|(&w, &a)| f64::from(w) * f64::from(a));
        let exact: f64 = products().sum();
        let magnitude: f64 = products().map(f64::abs).sum();
        // Q8_1 keeps the sums of activations as f16; half a unit in 2^11, times 32 activations,
        // times an offset that is the smallest weight itself.
        let tolerance = if partner == GgmlType::Q8_1 && ty != partner {
            let largest = |row: &[f32]| row.iter().fold(0.0, |max: f64, x| max.max(f64::from(x.abs())));
            1e-5 * magnitude + COLUMNS as f64 * largest(&w) * largest(&a) / 2048.0
        } else {
            1e-5 * magnitude
        };
        let dot = f64::from(dot_row(ty, &weights, &activations).unwrap());
        prop_assert!((dot - exact).abs() <= tolerance, "{ty}: {dot} instead of {exact} (tolerance {tolerance})");
        let dot = f64::from(dot_row_f32(ty, &weights, &a).unwrap());
        prop_assert!((dot - exact).abs() <= 1e-5 * magnitude, "{ty}: {dot} instead of {exact} in f32");
    }

    /// No element is further from its quantized value than the type's coarsest step allows.
    #[test]
    fn round_trips_stay_close(ty in quantizable(), row in normal_row()) {
        let back = dequantized(ty, &quantized(ty, &row));
        let largest = row.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        // Share of the largest magnitude of the row.
        let allowed = match ty {
            GgmlType::F32 | GgmlType::F64 => 0.0,
            GgmlType::F16 | GgmlType::BF16 => 0.005,
            GgmlType::Q8_0 | GgmlType::Q8_1 | GgmlType::Q8_K => 0.006,
            GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5_K | GgmlType::Q6_K => 0.08,
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4_K | GgmlType::IQ4_NL | GgmlType::IQ4_XS => 0.16,
            GgmlType::MXFP4 | GgmlType::NVFP4 => 0.34,
            GgmlType::Q3_K => 0.35,
            GgmlType::TQ1_0 | GgmlType::TQ2_0 | GgmlType::Q2_0 => 0.51,
            // Eight elements share a point of the lattice, so one that counts little takes what is left: at most 1.125
            // scales, which the quantizers raise by an eighth at most, where the largest element has 0.875 scales at least.
            GgmlType::IQ1_S | GgmlType::IQ1_M => 1.125 * 1.125 / 0.875,
            _ => 1.0,
        };
        for (x, y) in row.iter().zip(&back) {
            prop_assert!((x - y).abs() <= allowed * largest, "{ty}: {x} became {y}; the row reaches {largest}");
        }
    }

    /// Rows of a cache are no worse than those of a file, but for the rounding of the scale; hostile rows are valid ones.
    #[test]
    fn cache_rows_are_as_good_as_file_rows(
        ty in proptest::sample::select(vec![GgmlType::Q4_0, GgmlType::Q5_0]),
        row in normal_row(),
        odd in proptest::collection::vec(proptest::num::f32::ANY, COLUMNS),
    ) {
        let of_cache = |row: &[f32]| {
            let mut packed = vec![0; row_bytes(ty)];
            quantize_cache_row(ty, row, &mut packed).unwrap();
            dequantized(ty, &packed)
        };
        let error = |back: &[f32]| row.iter().zip(back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
        let (cache, file) = (error(&of_cache(&row)), error(&dequantized(ty, &quantized(ty, &row))));
        prop_assert!(cache <= 1.001 * file, "{ty}: {cache} instead of {file}");
        prop_assert_eq!(of_cache(&odd).len(), COLUMNS);
        prop_assert_eq!(of_cache(&[0.0; COLUMNS]), vec![0.0; COLUMNS]);
    }

    #[test]
    fn wrong_lengths_are_refused(ty in any_type(), columns in 0..2 * COLUMNS, len in 0..8 * COLUMNS) {
        let right = ty.row_bytes(columns) == Some(len);
        let (mut bytes, mut row) = (vec![0; len], vec![0.0; columns]);
        let expected = match ty.row_bytes(columns) {
            None => QuantError::PartialBlock { ty, elements: columns },
            Some(expected) => QuantError::ByteLength { ty, elements: columns, expected, actual: len },
        };
        if !right {
            prop_assert_eq!(dequantize_row(ty, &bytes, &mut row), Err(expected));
            prop_assert_eq!(quantize_row(ty, &row, None, &mut bytes), Err(expected));
            prop_assert_eq!(dot_row_f32(ty, &bytes, &row), Err(expected));
        }
    }
}

#[test]
fn zeros_stay_zero() {
    for ty in GgmlType::all().filter(|&ty| has_quantizer(ty)) {
        let packed = quantized(ty, &[0.0; COLUMNS]);
        assert!(dequantized(ty, &packed).iter().all(|&x| x == 0.0), "{ty}");
        let mut weighted = vec![0; packed.len()];
        quantize_row(ty, &[0.0; COLUMNS], Some(&[1.0; COLUMNS]), &mut weighted).unwrap();
        assert!(dequantized(ty, &weighted).iter().all(|&x| x == 0.0), "{ty} with importance");
    }
}

/// Importance may be zero everywhere (an expert that was never chosen): the row must still be usable.
#[test]
fn importance_of_zero_gives_finite_values() {
    let row: Vec<f32> = (0..COLUMNS).map(|i| (i as f32 * 0.37).sin()).collect();
    for ty in GgmlType::all().filter(|&ty| has_quantizer(ty)) {
        let mut packed = vec![0; row_bytes(ty)];
        quantize_row(ty, &row, Some(&[0.0; COLUMNS]), &mut packed).unwrap();
        assert!(dequantized(ty, &packed).iter().all(|x| x.is_finite()), "{ty}");
    }
}

#[test]
fn wrong_importance_and_dot_lengths_are_refused() {
    let mut packed = [0; 18];
    let error = quantize_row(GgmlType::Q4_0, &[0.0; 32], Some(&[1.0; 31]), &mut packed);
    assert_eq!(error, Err(QuantError::ImportanceLength { elements: 32, actual: 31 }));
    let (ty, actual) = (GgmlType::Q4_0, 17);
    let error = dot_row(ty, &packed[..17], &[0; 34]);
    assert_eq!(error, Err(QuantError::ByteLength { ty, elements: 0, expected: 0, actual }));
    let error = dot_row(ty, &packed, &[0; 33]);
    assert_eq!(error, Err(QuantError::ByteLength { ty: GgmlType::Q8_0, elements: 32, expected: 34, actual: 33 }));
    assert_eq!(dot_row(ty, &[], &[]), Ok(0.0));
}

#[test]
fn types_without_a_quantizer_say_so() {
    for ty in [GgmlType::I8, GgmlType::I32] {
        assert!(!has_quantizer(ty) && !needs_importance(ty));
        let mut packed = vec![0; row_bytes(ty)];
        assert_eq!(quantize_row(ty, &[1.0; COLUMNS], None, &mut packed), Err(QuantError::NoQuantizer { ty }));
    }
    let ty = GgmlType::IQ2_XXS;
    let mut packed = vec![0; row_bytes(ty)];
    assert_eq!(quantize_row(ty, &[1.0; COLUMNS], None, &mut packed), Err(QuantError::ImportanceNeeded { ty }));
}

/// Worked by hand: Q4_0 weights 0.5 * (q - 8) with q = 9 (low) and 6 (high), activations 2 * 3.
#[test]
fn a_dot_product_by_hand() {
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
    let mut weights = half(0.5).to_vec();
    weights.extend([0x69; 16]);
    let mut activations = half(2.0).to_vec();
    activations.extend([3; 32]);
    // 16 * (0.5 - 1.0) * 6
    assert_eq!(dot_row(GgmlType::Q4_0, &weights, &activations), Ok(-48.0));
}

#[test]
fn plain_types_convert() {
    let row = |ty, bytes: &[u8]| dequantized(ty, bytes);
    assert_eq!(row(GgmlType::I8, &[255, 3]), [-1.0, 3.0]);
    assert_eq!(row(GgmlType::I16, &(-300i16).to_le_bytes()), [-300.0]);
    assert_eq!(row(GgmlType::I32, &(1i32 << 30).to_le_bytes()), [1073741824.0]);
    assert_eq!(row(GgmlType::I64, &(-1i64 << 40).to_le_bytes()), [-1099511627776.0]);
    assert_eq!(row(GgmlType::F64, &0.1f64.to_le_bytes()), [0.1]);
    assert_eq!(row(GgmlType::F32, &f32::MIN_POSITIVE.to_le_bytes()), [f32::MIN_POSITIVE]);
}
