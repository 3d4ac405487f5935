use super::*;
use proptest::prelude::*;
use quant::unpack::Unpack;

/// Every type that has a form.
fn types() -> Vec<GgmlType> {
    GgmlType::all().filter(|ty| form(*ty).is_some()).collect()
}

fn levels() -> Vec<Simd> {
    SimdLevel::ALL.into_iter().filter_map(Simd::with).collect()
}

/// Numbers from a seed (SplitMix64).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *seed;
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Packed blocks of any bits: also those that no quantizer writes. Only scales are kept small enough to be numbers.
fn packed(ty: GgmlType, rows: usize, cols: usize, seed: &mut u64) -> Vec<u8> {
    fn tame<B: Unpack>(bytes: &mut [u8], seed: &mut u64) {
        for bytes in bytes.chunks_exact_mut(size_of::<B>()) {
            loop {
                bytes.iter_mut().for_each(|byte| *byte = random(seed) as u8);
                let mut unpacked = quant::unpack::Unpacked::new();
                bytemuck::pod_read_unaligned::<B>(bytes).unpack(&mut unpacked);
                let fine = |x: f32| x.is_finite() && x.abs() < 1e3;
                if fine(unpacked.d) && (!B::HAS_MINS || fine(unpacked.dmin)) {
                    break;
                }
            }
        }
    }
    let mut bytes = vec![0u8; rows * ty.row_bytes(cols).unwrap()];
    for_wide!(ty, B => tame::<B>(&mut bytes, seed), _ => for_narrow!(ty, B => tame::<B>(&mut bytes, seed), _ => ()));
    bytes
}

enum Owned {
    Wide(Vec<WideBlock>),
    Narrow(Vec<NarrowBlock>),
}

fn activation(ty: GgmlType, simd: Simd, x: &[f32]) -> Owned {
    match form(ty).unwrap() {
        Form::Wide => {
            let mut out = vec![WideBlock::default(); x.len() / WIDE];
            simd.quantize_wide(x, &mut out);
            Owned::Wide(out)
        }
        Form::Narrow => {
            let mut out = vec![NarrowBlock::default(); x.len() / NARROW];
            simd.quantize_narrow(x, &mut out);
            Owned::Narrow(out)
        }
    }
}

impl Owned {
    /// Rows one after the other.
    fn joined<'a>(rows: impl Iterator<Item = &'a Owned>) -> Owned {
        rows.fold(None, |all, row| match (all, row) {
            (None, Owned::Wide(row)) => Some(Owned::Wide(row.clone())),
            (None, Owned::Narrow(row)) => Some(Owned::Narrow(row.clone())),
            (Some(Owned::Wide(all)), Owned::Wide(row)) => Some(Owned::Wide([all, row.clone()].concat())),
            (Some(Owned::Narrow(all)), Owned::Narrow(row)) => Some(Owned::Narrow([all, row.clone()].concat())),
            _ => panic!("rows of two forms"),
        })
        .expect("a row")
    }

    fn blocks(&self) -> usize {
        match self {
            Owned::Wide(row) => row.len(),
            Owned::Narrow(row) => row.len(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Owned::Wide(_) => WIDE,
            Owned::Narrow(_) => NARROW,
        }
    }

    fn row(&self) -> Row<'_> {
        match self {
            Owned::Wide(row) => Row::Wide(row),
            Owned::Narrow(row) => Row::Narrow(row),
        }
    }
}

fn values(count: usize, spread: f32, seed: &mut u64) -> Vec<f32> {
    (0..count).map(|_| (random(seed) as i32 as f32 / i32::MAX as f32) * spread).collect()
}

/// The bits of products of rows of weights with rows of activations: of rows alone, and of panels of `part` blocks.
fn results(simd: Simd, ty: GgmlType, bytes: &[u8], rows: usize, x: &[Vec<f32>], part: usize) -> [Vec<Vec<u32>>; 2] {
    let (tokens, cols, row_bytes) = (x.len(), x[0].len(), bytes.len() / rows);
    let owned: Vec<Owned> = x.iter().map(|x| activation(ty, simd, x)).collect();
    let acts: Vec<Row<'_>> = owned.iter().map(Owned::row).collect();
    let mut alone = vec![Vec::new(); tokens];
    // What meant another type, and more, before.
    let mut prepared = Prepared::default();
    simd.prepare(GgmlType::Q8_0, Row::Narrow(&[NarrowBlock::default(); 256]), &mut prepared);
    for (act, alone) in acts.iter().zip(&mut alone) {
        simd.prepare(ty, *act, &mut prepared);
        for four in bytes.chunks(ROWS * row_bytes) {
            let (mut out, count) = ([0f32; ROWS], four.len() / row_bytes);
            simd.dot_rows(four, count, *act, &prepared, &mut out);
            alone.extend(out[..count].iter().map(|x| x.to_bits()));
        }
    }
    // Rows in another order than that of memory.
    let places: Vec<usize> = (0..tokens).rev().collect();
    let all = Owned::joined(owned.iter().rev());
    let mut panel = Panel::default();
    // A panel that held something larger before.
    let other = packed(GgmlType::Q2_K, PANEL_ROWS, 4 * WIDE, &mut 3);
    let row_of_other = other.len() / PANEL_ROWS;
    let larger = Stripe { bytes: &other, row_bytes: row_of_other, rows: PANEL_ROWS, first: 0, blocks: 4 };
    simd.fill_panel(GgmlType::Q2_K, &larger, &mut panel);
    let mut out = vec![Lanes32::<f32>::default(); tokens];
    // Some blocks, then others.
    let (per_row, size) = (cols / ty.block_size(), ty.block_size());
    for first in (0..per_row).step_by(part) {
        let blocks = part.min(per_row - first);
        simd.fill_panel(ty, &Stripe { bytes, row_bytes, rows, first, blocks }, &mut panel);
        let start = first * size;
        let inputs =
            Inputs { blocks: all.row(), stride: all.blocks() / tokens, first: start / all.size(), places: &places };
        simd.dot_panel(&panel, &inputs, first == 0, &mut out);
    }
    let panel = out.iter().map(|out| (0..rows).map(|row| out[row / 16].0[row % 16].to_bits()).collect()).collect();
    [alone, panel]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Rows alone and in panels, on every level: the same bits as the scalar twin. Up to twice the blocks that the row
    /// kernel takes at once, and one.
    #[test]
    fn all_kernels_give_the_same_bits(seed in any::<u64>(), rows in 1usize..=32, tokens in 1usize..=13, blocks in 1usize..=9, part in 1usize..=9, spread in 0.01f32..100.0) {
        let mut seed = seed;
        let cols = blocks * WIDE;
        let x: Vec<Vec<f32>> = (0..tokens).map(|_| values(cols, spread, &mut seed)).collect();
        for ty in types() {
            let bytes = packed(ty, rows, cols, &mut seed);
            let mut expected: Option<Vec<Vec<u32>>> = None;
            for simd in levels() {
                let [alone, panel] = results(simd, ty, &bytes, rows, &x, part);
                prop_assert_eq!(&alone, &panel, "{} alone and in a panel, {:?}", ty, simd.level());
                match &expected {
                    None => expected = Some(alone),
                    Some(expected) => prop_assert_eq!(expected, &alone, "{}, {:?}", ty, simd.level()),
                }
            }
        }
    }

    /// Close to the sum of products of the dequantized weights with the rounded activations, computed in f64.
    #[test]
    fn products_are_right(seed in any::<u64>()) {
        let mut seed = seed;
        let cols = 2 * WIDE;
        let x = values(cols, 1.0, &mut seed);
        for ty in types() {
            let bytes = packed(ty, 1, cols, &mut seed);
            let owned = activation(ty, Simd::best(), &x);
            let rounded: Vec<f64> = match &owned {
                Owned::Wide(row) => row.iter().flat_map(|b| b.q.map(|q| f64::from(q) * f64::from(b.d))).collect(),
                Owned::Narrow(row) => row.iter().flat_map(|b| b.q.map(|q| f64::from(q) * f64::from(b.d))).collect(),
            };
            let mut weights = vec![0f32; cols];
            quant::dequantize_row(ty, &bytes, &mut weights).unwrap();
            let exact: f64 = weights.iter().zip(&rounded).map(|(w, a)| f64::from(*w) * a).sum();
            let largest = weights.iter().fold(0f64, |max, w| max.max(f64::from(w.abs())));
            let size: f64 = rounded.iter().map(|a| largest * a.abs()).sum();
            let (mut out, mut prepared) = ([0f32; ROWS], Prepared::default());
            Simd::best().prepare(ty, owned.row(), &mut prepared);
            Simd::best().dot_rows(&bytes, 1, owned.row(), &prepared, &mut out);
            let error = (f64::from(out[0]) - exact).abs();
            // The sum that meets the offsets of Q4_1 and Q5_1 is rounded to f16.
            let tolerance = if matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1) { 1e-3 } else { 1e-5 };
            prop_assert!(error <= tolerance * size, "{}: {} for {}", ty, out[0], exact);
        }
    }
}

/// Blocks of one byte throughout, but where their scale would be none, with activations as large as they get and of the
/// signs that make sums the largest, the least, or alternate: what saturates or wraps would show.
#[test]
fn the_largest_sums_fit() {
    fn block<B: Unpack>(byte: u8) -> Option<Vec<u8>> {
        let fine = |x: f32| x.is_finite() && x != 0.0 && x.abs() < 1e3;
        [0, 1, 2, 4, 8].into_iter().flat_map(|len| (0..=size_of::<B>() - len).map(move |at| (at, len))).find_map(
            |(at, len)| {
                let mut bytes = vec![byte; size_of::<B>()];
                bytes[at..at + len]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, byte)| *byte = if i % 2 == 0 { 0x21 } else { 0x2c });
                let mut unpacked = quant::unpack::Unpacked::new();
                bytemuck::pod_read_unaligned::<B>(&bytes).unpack(&mut unpacked);
                (fine(unpacked.d) && (!B::HAS_MINS || unpacked.dmin.is_finite())).then_some(bytes)
            },
        )
    }
    let mut met = 0;
    for ty in types() {
        for byte in [0xff, 0x00, 0x0f, 0xf0, 0x7f, 0x80, 0x55, 0xaa] {
            let Some(block) =
                for_wide!(ty, B => block::<B>(byte), _ => for_narrow!(ty, B => block::<B>(byte), _ => None))
            else {
                continue;
            };
            met += 1;
            let rows = 17;
            let mut bytes = Vec::new();
            bytes.extend(block.repeat(2 * WIDE / ty.block_size()));
            let mut weights = vec![0f32; 2 * WIDE];
            quant::dequantize_row(ty, &bytes, &mut weights).unwrap();
            let sign = |w: &f32| if *w < 0.0 { -1.0 } else { 1.0 };
            let largest: Vec<f32> = weights.iter().map(sign).collect();
            let least = largest.iter().map(|x| -x).collect();
            let turns = |every: usize| (0..2 * WIDE).map(|j| if j / every % 2 == 0 { 1.0 } else { -1.0 }).collect();
            let x = [largest, least, vec![1.0; 2 * WIDE], vec![-1.0; 2 * WIDE], turns(1), turns(2), turns(4)];
            let bytes = bytes.repeat(rows);
            let expected = results(Simd::with(SimdLevel::Scalar).unwrap(), ty, &bytes, rows, &x, 3);
            for simd in levels() {
                assert_eq!(results(simd, ty, &bytes, rows, &x, 3), expected, "{ty} of {byte}, {:?}", simd.level());
            }
        }
    }
    assert!(met >= 3 * types().len(), "{met}");
}

#[test]
fn rounding_is_to_a_half_step() {
    let mut seed = 7;
    for simd in levels() {
        let x = values(4 * WIDE, 3.0, &mut seed);
        let mut wide = vec![WideBlock::default(); 4];
        simd.quantize_wide(&x, &mut wide);
        let mut narrow = vec![NarrowBlock::default(); 32];
        simd.quantize_narrow(&x, &mut narrow);
        for (j, x) in x.iter().enumerate() {
            let (w, n) = (&wide[j / WIDE], &narrow[j / NARROW]);
            assert!((w.d * f32::from(w.q[j % WIDE]) - x).abs() <= w.d.abs() * 0.5001);
            // The scale itself is rounded to f16.
            assert!((n.d * f32::from(n.q[j % NARROW]) - x).abs() <= n.d * 0.5001 + x.abs() / 2048.0);
        }
    }
}

#[test]
fn zeros_and_infinities_are_kept() {
    let (mut wide, mut narrow) = ([WideBlock::default()], [NarrowBlock::default()]);
    Simd::best().quantize_wide(&[0.0; WIDE], &mut wide);
    Simd::best().quantize_narrow(&[0.0; NARROW], &mut narrow);
    assert!(wide[0].d == 0.0 && narrow[0].d == 0.0);
    Simd::best().quantize_wide(&[f32::INFINITY; WIDE], &mut wide);
    Simd::best().quantize_narrow(&[f32::INFINITY; NARROW], &mut narrow);
    assert!(wide[0].d.is_nan() && narrow[0].d.is_nan());
}

#[test]
fn rows_of_caches_become_the_values_that_the_reference_gives() {
    let mut seed = 11;
    for ty in [GgmlType::Q8_0, GgmlType::Q5_1, GgmlType::Q5_0, GgmlType::Q4_1, GgmlType::Q4_0, GgmlType::IQ4_NL] {
        let bytes = packed(ty, 1, 32 * 9, &mut seed);
        let mut expected = vec![0f32; 32 * 9];
        quant::dequantize_row(ty, &bytes, &mut expected).unwrap();
        for simd in levels() {
            let mut found = vec![0f32; 32 * 9];
            simd.dequantize(ty, &bytes, &mut found).unwrap();
            assert_eq!(found, expected, "{ty}");
            assert!(simd.dequantize(ty, &bytes[1..], &mut found).is_err());
        }
    }
}
