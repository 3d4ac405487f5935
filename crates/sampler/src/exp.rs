/// e^x for x <= 0, from IEEE 754 basic operations: the same bits on every platform, which `f64::exp` does not promise.
///
/// x = k ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor series up to r^13 / 13!, whose remainder is below 1e-17.
/// Below -700 (and for minus infinity) the result is 0.
pub(crate) fn exp(x: f64) -> f64 {
    /// ln 2 in two parts; the first has 32 trailing zero bits, so that k times it is exact.
    const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    if !(x >= -700.0) {
        return 0.0;
    }
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    let series = (1..=13).rev().fold(1.0, |sum, n| 1.0 + sum * r / f64::from(n));
    // k is between -1010 and 0: the exponent field stays positive.
    series * f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn is_the_exponential() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(f64::NAN), 0.0);
        for step in 0..70_000 {
            let x = f64::from(step) * -0.01;
            let error = (exp(x) / x.exp() - 1.0).abs();
            assert!(error <= 1e-15, "{x}: {error}");
        }
    }
}
