//! Kernels in plain Rust that compilers vectorise; also compiled with AVX2 enabled, by `x86`.

use half::f16;

/// exp(x) to about 2 ulp, without branches: 2^n * p(r), Cephes' polynomial. 0 below -87.3, infinity above 88.7.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.7);
    // Adding 1.5 * 2^23 rounds to the nearest integer, which the lower bits then are; conversions that mind the ends of
    // i32 would not become vectors.
    const ROUND: f32 = 12_582_912.0;
    let rounded = clamped * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_1e-1;
    let y = p * r * r + r + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let scaled = y * f32::from_bits(exponent << 23);
    let low = if x < -87.3 { 0.0 } else { scaled };
    let high = if x > 88.7 { f32::INFINITY } else { low };
    if x.is_nan() { x } else { high }
}

#[inline(always)]
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// Sums in as many lanes as a vector has.
#[inline(always)]
pub fn exp_minus<const LANES: usize>(x: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - max);
            *lane += *x;
        }
    }
    let mut sum = halved(lanes, |a, b| a + b);
    for x in rest {
        *x = exp(*x - max);
        sum += *x;
    }
    sum
}

/// `x = cap * tanh(x / cap)`, to about 2^-22 of the cap.
#[inline(always)]
pub fn softcap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * (1.0 - 2.0 / (exp(2.0 * (*x / cap)) + 1.0));
    }
}

/// The largest of `least` and the numbers of `x`; what is no number is passed over.
#[inline(always)]
pub fn max(x: &[f32], least: f32) -> f32 {
    let mut lanes = [least; 16];
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *x);
        }
    }
    rest.iter().copied().fold(halved(lanes, larger), larger)
}

/// Lanes put together, halves first: one after the other they would wait for each other.
#[inline(always)]
fn halved<const LANES: usize>(mut lanes: [f32; LANES], put: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = put(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

#[inline(always)]
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// The sum of squared distances from `mean`.
#[inline(always)]
pub fn squares(x: &[f32], mean: f64) -> f64 {
    let mut lanes = [0f64; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            let distance = f64::from(*x) - mean;
            *lane += distance * distance;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        let distance = f64::from(*x) - mean;
        *lane += distance * distance;
    }
    lanes.iter().sum()
}

/// `out = (x - mean) * factor * weight + bias`
#[inline(always)]
pub fn normalize(x: &[f32], [mean, factor]: [f32; 2], weight: Option<&[f32]>, bias: Option<&[f32]>, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = (x - mean) * factor;
    }
    if let Some(weight) = weight {
        out.iter_mut().zip(weight).for_each(|(out, weight)| *out *= weight);
    }
    if let Some(bias) = bias {
        out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
    }
}

#[inline(always)]
pub fn narrow_f16(x: &[f32], out: &mut [u16]) {
    for (x, out) in x.iter().zip(out) {
        *out = f16::from_f32(*x).to_bits();
    }
}

#[inline(always)]
pub fn widen_f16(x: &[u16], out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = f16::from_bits(*x).to_f32();
    }
}

/// The butterflies of the Walsh-Hadamard transform: sums and differences of values 1, 2, 4, ... apart.
#[inline(always)]
pub fn hadamard(x: &mut [f32]) {
    let (octets, rest) = x.as_chunks_mut::<8>();
    octets.iter_mut().for_each(eight);
    butterflies(rest, 1);
    butterflies(x, 8);
    let scale = 1.0 / (x.len() as f32).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
}

#[inline(always)]
fn butterflies(x: &mut [f32], mut apart: usize) {
    while apart < x.len() {
        for pair in x.chunks_exact_mut(2 * apart) {
            let (low, high) = pair.split_at_mut(apart);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        apart *= 2;
    }
}

/// The first three steps, on what a vector holds.
#[inline(always)]
fn eight(x: &mut [f32; 8]) {
    for apart in [1, 2, 4] {
        *x = std::array::from_fn(|i| if i & apart == 0 { x[i] + x[i + apart] } else { x[i - apart] - x[i] });
    }
}

#[cfg(test)]
mod tests {
    use super::squares as squares_of;
    use super::*;
    use crate::Simd;
    use crate::simd::SimdLevel;

    #[test]
    fn hadamard_is_its_definition_and_its_own_inverse() {
        let levels = SimdLevel::ALL;
        for len in [1usize, 2, 4, 8, 16, 64, 128, 512] {
            let x: Vec<f32> = (0..len).map(|i| ((i * i * 37 + 11 * i) % 101) as f32 - 50.0).collect();
            let mut first: Option<Vec<f32>> = None;
            for simd in levels.into_iter().filter_map(Simd::with) {
                let mut y = x.clone();
                simd.hadamard(&mut y);
                for (i, y) in y.iter().enumerate() {
                    let sign = |j: usize| if (i & j).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                    let exact: f64 = x.iter().enumerate().map(|(j, x)| sign(j) * f64::from(*x)).sum();
                    let exact = exact / (len as f64).sqrt();
                    assert!((f64::from(*y) - exact).abs() <= 1e-4, "{len}: {y} is not {exact}");
                }
                // Sums and differences alone: no instruction set rounds them otherwise.
                assert_eq!(*first.get_or_insert(y.clone()), y);
                simd.hadamard(&mut y);
                for (y, x) in y.iter().zip(&x) {
                    assert!((y - x).abs() <= 1e-4, "{len}: {y} is not {x}");
                }
            }
        }
    }

    #[test]
    fn f16_is_rounded_as_everywhere() {
        // All exponents, ties, numbers beyond the range; a length that is no multiple of a vector's.
        let x: Vec<f32> = (0..40_003u32).map(|i| f32::from_bits(i.wrapping_mul(107_374))).collect();
        let mut expected = vec![0u8; 2 * x.len()];
        quant::quantize_cache_row(quant::GgmlType::F16, &x, &mut expected).unwrap();
        for simd in SimdLevel::ALL.into_iter().filter_map(Simd::with) {
            let mut found = vec![0u8; 2 * x.len()];
            simd.quantize_cache_row(quant::GgmlType::F16, &x, &mut found).unwrap();
            for ((x, found), expected) in x.iter().zip(found.chunks(2)).zip(expected.chunks(2)) {
                let [found, expected] = [found, expected].map(|b| f16::from_le_bytes([b[0], b[1]]));
                assert!(found.to_bits() == expected.to_bits() || x.is_nan() && found.is_nan(), "{x}: {found}");
            }
            assert!(simd.quantize_cache_row(quant::GgmlType::F16, &x, &mut found[1..]).is_err());
        }
    }

    #[test]
    fn norms_are_the_same_on_all_levels() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin() * 3.0 + 0.5).collect();
        let exact: f64 = x.iter().map(|x| (f64::from(*x) - 0.5).powi(2)).sum();
        let (weight, bias): (Vec<f32>, Vec<f32>) = x.iter().map(|x| (x * 0.5, x - 1.0)).unzip();
        for simd in SimdLevel::ALL.into_iter().filter_map(Simd::with) {
            let squares = simd.squares(&x, 0.5);
            assert!((squares - exact).abs() <= 1e-12 * exact, "{squares} for {exact}");
            assert_eq!(squares.to_bits(), squares_of(&x, 0.5).to_bits());
            let mut out = vec![0f32; x.len()];
            simd.normalize(&x, [0.5, 2.0], Some(&weight), Some(&bias), &mut out);
            for (i, out) in out.iter().enumerate() {
                assert_eq!(*out, (x[i] - 0.5) * 2.0 * weight[i] + bias[i]);
            }
            simd.normalize(&x, [0.0, 0.25], None, None, &mut out);
            assert!(out.iter().zip(&x).all(|(out, x)| *out == x * 0.25));
        }
    }

    #[test]
    fn soft_caps_are_their_definition() {
        let x: Vec<f32> = (-30_001..30_003).map(|i| i as f32 * 0.01).chain([0.0, 1e-9, -1e-9, 1e30, -1e30]).collect();
        for simd in SimdLevel::ALL.into_iter().filter_map(Simd::with) {
            for cap in [50.0, 30.0, 0.5] {
                let mut capped = x.clone();
                simd.softcap(&mut capped, cap);
                for (x, found) in x.iter().zip(capped) {
                    let exact = f64::from(cap) * (f64::from(*x) / f64::from(cap)).tanh();
                    let error = (f64::from(found) - exact).abs();
                    assert!(error <= 2.5e-7 * f64::from(cap), "{x}: {found} is not {exact}");
                }
            }
            let mut ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            simd.softcap(&mut ends, 50.0);
            assert!(ends[0].is_nan() && ends[1] == 50.0 && ends[2] == -50.0);
        }
    }

    #[test]
    fn exp_is_accurate() {
        let mut worst = 0f64;
        for step in 0..2_000_000 {
            let x = -87.0 + step as f32 * 8.7e-5;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst <= 3e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
