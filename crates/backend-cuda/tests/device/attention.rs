//! KV caches and attention beside the CPU device.

use crate::common::driver::State;
use crate::common::library::sanitizer;
use crate::common::pair::Pair;
use crate::common::random::Random;
use backend::{AttentionSpec, Device, KvCache, Op, View};
use backend_cuda::Architecture::{self, Compute61, Compute75, Compute80};
use backend_cuda::GpuConfig;
use quant::GgmlType::{self, *};

#[derive(Clone, Copy)]
struct Case {
    types: [GgmlType; 2],
    heads: usize,
    heads_kv: usize,
    dims: [usize; 2],
    capacity: usize,
    window: usize,
    softcap: f32,
    sinks: bool,
    /// V is a part of K.
    latent: bool,
    architecture: Architecture,
    /// From PTX.
    text: bool,
    /// A block takes all splits.
    whole: bool,
}

const PLAIN: Case = Case {
    types: [F16, F16],
    heads: 4,
    heads_kv: 2,
    dims: [64, 64],
    capacity: 700,
    window: 0,
    softcap: 0.0,
    sinks: false,
    latent: false,
    architecture: Compute80,
    text: false,
    whole: false,
};

/// A cache in both devices with positions 0..end stored in batches, and what it takes to attend to it.
struct Setup {
    pair: Pair,
    cache: KvCache,
    spec: AttentionSpec,
    q: View,
}

fn setup(case: &Case, end: usize, batch: usize, seed: u64) -> Setup {
    let mut random = Random(seed);
    let config = GpuConfig { whole_attention: case.whole, ..GpuConfig::default() };
    let mut pair =
        Pair::configured(State { seed, architecture: case.architecture, text: case.text, ..State::default() }, config);
    let [dim_k, dim_v] = case.dims;
    let bytes = |ty: GgmlType, dim| case.heads_kv * case.capacity * ty.row_bytes(dim).unwrap();
    // Cells that were never written are NaN, or anything, and must not be used.
    let [k_buffer, v_buffer] =
        [(case.types[0], dim_k), (case.types[1], dim_v)].map(|(ty, dim)| pair.bytes(&vec![0xffu8; bytes(ty, dim)]));
    let cache = KvCache {
        k: k_buffer,
        v: (!case.latent).then_some(v_buffer),
        k_type: case.types[0],
        v_type: case.types[1],
        capacity: case.capacity,
        head_count_kv: case.heads_kv,
        head_dim_k: dim_k,
        head_dim_v: dim_v,
    };
    let k = pair.floats(&random.floats(end * case.heads_kv * dim_k, 2.0));
    let v = pair.floats(&random.floats(end * case.heads_kv * dim_v, 2.0));
    for start in (0..end).step_by(batch) {
        let n = batch.min(end - start);
        let (k, v) = (k.at(start * case.heads_kv * dim_k), v.at(start * case.heads_kv * dim_v));
        pair.run(&Op::StoreKv { cache, k, v, n, start });
    }
    pair.same_bytes(k_buffer, bytes(case.types[0], dim_k), "the cache of K");
    pair.same_bytes(v_buffer, bytes(case.types[1], dim_v), "the cache of V");
    let q = pair.floats(&random.floats(end * case.heads * dim_k, 2.0));
    let sinks = case.sinks.then(|| pair.floats(&random.floats(case.heads, 3.0)));
    let scale = 1.0 / (dim_k as f32).sqrt();
    let spec = AttentionSpec { head_count: case.heads, scale, softcap: case.softcap, window: case.window, sinks };
    Setup { pair, cache, spec, q }
}

/// Rows start..start + n of a sequence of that length, with tensor cores and without; splits beside each other and, where
/// there are several, one after the other. The first tensor cores do nothing in another order than later ones.
fn check(case: Case, start: usize, n: usize, seed: u64) {
    for architecture in [Compute61, Compute75, Compute80] {
        let both = start + n > 256 && architecture != Compute75;
        for whole in if both { &[false, true][..] } else { &[false] } {
            check_on(Case { architecture, whole: *whole, ..case }, start, n, seed);
        }
    }
}

fn check_on(case: Case, start: usize, n: usize, seed: u64) {
    let mut s = setup(&case, start + n, 13, seed);
    let [dim_k, dim_v] = case.dims;
    let len = n * case.heads * dim_v;
    let out = s.pair.out(len + 1);
    let q = s.q.at(start * case.heads * dim_k);
    s.pair.run(&Op::Attention { cache: s.cache, spec: s.spec, q, n, start, out });
    let what = format!(
        "{:?} {:?} from {start}, {n} rows, {:?}, whole: {}",
        case.types, case.dims, case.architecture, case.whole
    );
    s.pair.compare(out, len, 5e-6, &what);
    assert!(s.pair.results(out, len + 1)[0][len].is_nan(), "{what}: written past the end");
}

#[test]
fn types_of_caches() {
    let same = [F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, IQ4_NL].map(|ty| [ty, ty]);
    for (i, types) in same.into_iter().chain([[Q8_0, F16], [Q4_0, Q5_1]]).enumerate() {
        check(Case { types, ..PLAIN }, 40, 1, i as u64);
        check(Case { types, ..PLAIN }, 0, 19, i as u64);
    }
}

/// Every type in the kernels for every size of heads, with nearly as many queries as a tile of them has, and with more.
#[test]
fn types_of_caches_in_all_sizes() {
    let blocks =
        [F32, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, IQ4_NL].map(|ty| (ty, [[96, 96], [160, 160], [288, 288], [256, 128]]));
    let others = [F16, BF16].map(|ty| (ty, [[48, 48], [112, 176], [304, 272], [240, 112]]));
    for (i, (ty, sizes)) in blocks.into_iter().chain(others).enumerate() {
        for dims in sizes {
            for n in [7, 17] {
                check(Case { types: [ty, ty], dims, ..PLAIN }, 20, n, i as u64);
            }
        }
    }
}

/// Blocks that have no scale, one large value, values that are nearly alike, tiny ones: every byte is the CPU's.
#[test]
fn odd_values_are_cached_as_the_cpu_does() {
    for ty in [Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, IQ4_NL] {
        let case = Case { types: [ty, ty], dims: [96, 32], capacity: 64, ..PLAIN };
        let Setup { mut pair, cache, .. } = setup(&case, 1, 1, 7);
        let mut random = Random(ty.id().into());
        let (wide, narrow) = (64 * case.heads_kv * 96, 64 * case.heads_kv * 32);
        let mut k = random.floats(wide, 1.0);
        for (i, block) in k.chunks_exact_mut(32).enumerate() {
            match i % 8 {
                0 => block.fill(0.0),
                1 => block.fill(-3.5),
                2 => block[i % 32] = 1e4,
                3 => block[i % 32] = -1e4,
                4 => block.iter_mut().for_each(|x| *x = 7.0 + *x * 1e-3),
                5 => block.iter_mut().for_each(|x| *x *= 1e-12),
                // Two of the same magnitude: the first counts.
                6 => (block[9], block[20]) = (2.0, -2.0),
                _ => block.iter_mut().for_each(|x| *x = x.abs()),
            }
        }
        let v = pair.floats(&k[..narrow]);
        let k = pair.floats(&k);
        pair.run(&Op::StoreKv { cache, k, v, n: 64, start: 64 });
        let bytes = |dim: usize| case.heads_kv * case.capacity * ty.row_bytes(dim).unwrap();
        pair.same_bytes(cache.k, bytes(96), &format!("{ty}: the cache of K"));
        pair.same_bytes(cache.v.unwrap(), bytes(32), &format!("{ty}: the cache of V"));
    }
}

/// Lanes that write beside each other come in many orders.
#[test]
fn caches_do_not_depend_on_the_order_of_lanes() {
    for ty in [Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, IQ4_NL] {
        let case = Case { types: [ty, ty], heads: 1, heads_kv: 1, dims: [32, 32], capacity: 1, ..PLAIN };
        for seed in 0..100 {
            setup(&case, 1, 1, seed);
        }
    }
}

#[test]
fn sizes_of_heads() {
    // To ThreadSanitizer every thread of a block is one. Three heads are enough for it: in one row and in nine they launch every
    // kernel that the others do.
    let shared_by = if sanitizer().as_deref() == Some("thread") { &[3][..] } else { &[1, 3, 8] };
    for (i, dims) in
        [[32, 32], [64, 64], [80, 80], [96, 128], [128, 128], [192, 128], [256, 256], [512, 512], [288, 20]]
            .into_iter()
            .enumerate()
    {
        for heads in shared_by {
            let case = Case { dims, heads: 2 * heads, ..PLAIN };
            check(case, 70, 1, i as u64);
            check(case, 5, 9, i as u64);
        }
    }
    // Halves of words and of vectors.
    check(Case { dims: [34, 30], types: [F16, F16], ..PLAIN }, 33, 2, 1);
}

/// Scores are summed four values at a time, and four of those: what is left over, in every kernel.
#[test]
fn sizes_that_leave_something_over() {
    for dims in [[60, 44], [52, 56], [108, 92], [100, 104], [236, 220], [228, 232], [508, 300]] {
        for n in [1, 9] {
            check(Case { dims, ..PLAIN }, 5, n, n as u64);
        }
    }
}

/// Multi-head latent attention: V is the first values of K.
#[test]
fn values_in_keys() {
    for types in [[F16, F16], [Q8_0, Q8_0], [Q4_0, Q4_0]] {
        let case = Case { types, heads: 6, heads_kv: 1, dims: [576, 512], latent: true, ..PLAIN };
        check(case, 0, 7, 1);
        check(case, 300, 1, 2);
        check(Case { dims: [96, 64], ..case }, 20, 5, 3);
    }
}

#[test]
fn long_sequences() {
    check(PLAIN, 600, 1, 1);
    check(PLAIN, 255, 2, 2);
    check(PLAIN, 256, 1, 3);
    check(PLAIN, 200, 150, 4);
    check(Case { types: [Q8_0, Q8_0], heads: 14, ..PLAIN }, 520, 3, 5);
}

/// So many splits that they are merged several at a time, and some are left over.
#[test]
fn many_splits() {
    let case = Case { heads: 2, heads_kv: 1, dims: [32, 32], capacity: 2500, ..PLAIN };
    check(case, 2400, 1, 1);
    check(Case { sinks: true, ..case }, 1650, 2, 2);
}

/// The same in every kernel, in prompts too: a block takes one split after the other.
#[test]
fn several_splits_in_all_sizes() {
    let case = Case { types: [Q8_0, F16], sinks: true, capacity: 300, ..PLAIN };
    for (i, dims) in
        [[64, 64], [128, 128], [160, 160], [256, 256], [288, 64], [288, 128], [512, 512]].into_iter().enumerate()
    {
        for n in [1, 20] {
            check(Case { dims, ..case }, 270, n, i as u64);
        }
    }
}

#[test]
fn windows_softcaps_and_sinks() {
    for (i, window) in [1, 20, 32, 100, 300].into_iter().enumerate() {
        let case = Case { window, sinks: i % 2 == 0, softcap: if i % 3 == 0 { 20.0 } else { 0.0 }, ..PLAIN };
        check(case, 0, 40, i as u64);
        check(case, 350, 1, i as u64);
        // A ring just as large as it must be.
        check(Case { capacity: window + 13, ..case }, 333, 1, i as u64);
        check(Case { capacity: window + 13, ..case }, 327, 13, i as u64);
    }
    check(Case { sinks: true, ..PLAIN }, 0, 1, 9);
    check(Case { sinks: true, ..PLAIN }, 511, 2, 9);
}

/// What the driver gets, and not only its source.
#[test]
fn ptx_of_the_first_tensor_cores() {
    let case = Case { architecture: Compute75, text: true, ..PLAIN };
    check_on(Case { dims: [128, 128], types: [Q8_0, F16], ..case }, 20, 19, 1);
    check_on(Case { types: [F16, Q4_0], window: 290, sinks: true, ..case }, 300, 1, 2);
}

#[test]
fn windows_in_all_sizes() {
    for dims in [[128, 128], [256, 256], [512, 512]] {
        for n in [1, 7, 17] {
            check(Case { dims, window: 20, sinks: n != 7, softcap: 20.0, ..PLAIN }, 30, n, n as u64);
        }
    }
}

/// A row's result has the same bits beside any other rows: one kernel with all splits, or splits beside each other.
#[test]
fn a_row_does_not_depend_on_its_batch() {
    for case in [
        PLAIN,
        Case { dims: [128, 128], types: [Q8_0, F16], window: 290, sinks: true, ..PLAIN },
        Case { dims: [256, 192], heads: 8, ..PLAIN },
        Case { architecture: Compute75, ..PLAIN },
        Case { dims: [128, 128], types: [Q8_0, F16], window: 290, sinks: true, architecture: Compute61, ..PLAIN },
        Case { dims: [256, 192], heads: 8, architecture: Compute61, ..PLAIN },
    ] {
        let end = 530;
        let mut s = setup(&case, end, 64, 3);
        let (row_q, row_out) = (case.heads * case.dims[0], case.heads * case.dims[1]);
        let mut first: Option<Vec<u32>> = None;
        for batch in [530, 7, 64, 200] {
            let out = s.pair.out(end * row_out);
            for start in (0..end).step_by(batch) {
                let n = batch.min(end - start);
                let (q, out) = (s.q.at(start * row_q), out.at(start * row_out));
                s.pair.gpu.run(&Op::Attention { cache: s.cache, spec: s.spec, q, n, start, out }).unwrap();
            }
            let bits: Vec<u32> = s.pair.results(out, end * row_out)[0].iter().map(|x| x.to_bits()).collect();
            assert_eq!(*first.get_or_insert(bits.clone()), bits, "in batches of {batch}");
        }
        for row in [0, 255, 256, 529] {
            let out = s.pair.out(row_out);
            let q = s.q.at(row * row_q);
            s.pair.gpu.run(&Op::Attention { cache: s.cache, spec: s.spec, q, n: 1, start: row, out }).unwrap();
            let alone = &s.pair.results(out, row_out)[0];
            let together = &first.as_ref().unwrap()[row * row_out..][..row_out];
            assert!(alone.iter().zip(together).all(|(a, b)| a.to_bits() == *b), "row {row} alone");
        }
    }
}

/// What a row does not see is not multiplied by zero: it may be NaN.
#[test]
fn cells_outside_a_row_s_window_do_not_matter() {
    let (n, window) = (75, 37);
    let sizes = [[64, 64], [128, 128], [256, 256], [512, 512]].map(|dims| (F32, dims, Compute80));
    let others = [
        (F16, [64, 64], Compute80),
        (BF16, [96, 128], Compute80),
        (F32, [64, 64], Compute61),
        (F16, [256, 256], Compute61),
        (F32, [64, 64], Compute75),
    ];
    for (ty, dims, architecture) in sizes.into_iter().chain(others) {
        let case = Case { types: [ty, ty], dims, window, architecture, ..PLAIN };
        let Setup { mut pair, cache, spec, q } = setup(&case, n, n, 3);
        let row = case.heads * dims[1];
        let rows = |pair: &mut Pair| -> Vec<u32> {
            let out = pair.out(n * row);
            pair.run(&Op::Attention { cache, spec, q, n, start: 0, out });
            // Those that see neither the first cell nor the last one.
            pair.results(out, n * row)[0][window * row..(n - 1) * row].iter().map(|x| x.to_bits()).collect()
        };
        let expected = rows(&mut pair);
        let nan = pair.out(case.heads_kv * dims[0].max(dims[1]));
        for start in [0, n - 1] {
            pair.run(&Op::StoreKv { cache, k: nan, v: nan, n: 1, start });
        }
        assert!(rows(&mut pair) == expected, "{ty} {dims:?}, {architecture:?}");
    }
}

/// Rows that see NaN or infinity have it, in its columns, and no others: in every kernel, for many rows and for few.
#[test]
fn cells_that_are_no_numbers() {
    let sizes = [64, 128, 256, 512].map(|dim| (F16, dim, Compute80));
    let others = [(F32, 64, Compute80), (F16, 64, Compute61), (F32, 256, Compute61), (F16, 64, Compute75)];
    for (ty, dim, architecture) in sizes.into_iter().chain(others) {
        for (value, at) in [(f32::NAN, 40), (f32::INFINITY, 33)] {
            let case = Case { types: [ty, ty], dims: [dim, dim], architecture, ..PLAIN };
            let Setup { mut pair, cache, spec, q } = setup(&case, 70, 70, 3);
            let k = pair.floats(&Random(5).floats(2 * dim, 1.0));
            let bad = |d: usize| d % 3 == 0;
            // Of the first of two heads of V.
            let v: Vec<f32> = (0..2 * dim).map(|d| if d < dim && bad(d) { value } else { 0.5 }).collect();
            let v = pair.floats(&v);
            pair.run(&Op::StoreKv { cache, k, v, n: 1, start: at });
            for start in [0, 38, 63] {
                let len = (70 - start) * 4 * dim;
                let (q, out) = (q.at(start * 4 * dim), pair.out(len));
                pair.run(&Op::Attention { cache, spec, q, n: 70 - start, start, out });
                for (i, x) in pair.results(out, len)[0].iter().enumerate() {
                    let (row, head, d) = (start + i / (4 * dim), i / dim % 4, i % dim);
                    let sees = row >= at && head < 2 && bad(d);
                    let good = if sees { x.is_nan() == value.is_nan() && !x.is_finite() } else { x.is_finite() };
                    assert!(good, "{ty}, {architecture:?}: {x} at row {row}, head {head}, value {d} of {dim}");
                }
            }
        }
    }
}

/// Numbers that f16 does not hold, or not well: large and tiny keys, queries and values.
#[test]
fn magnitudes() {
    for (i, (ty, [of_q, of_k, of_v])) in [
        (F32, [1e-4, 1e4, 1.0]),
        (F32, [1e5, 1e-5, 1e5]),
        (BF16, [1e-9, 1e9, 1e30]),
        (F16, [1e5, 1e-5, 3e4]),
        (F16, [1e-4, 1e4, 1e-3]),
        (Q8_0, [1e-4, 1e4, 2e4]),
        (Q8_0, [1e2, 1e-2, 1e-3]),
        (Q4_0, [1.0, 1.0, 2e3]),
    ]
    .into_iter()
    .enumerate()
    {
        for (architecture, n) in [(Compute80, 40), (Compute75, 40), (Compute61, 40), (Compute80, 1)] {
            let case = Case { types: [ty, ty], dims: [96, 64], architecture, ..PLAIN };
            let Setup { mut pair, cache, spec, .. } = setup(&case, 1, 1, i as u64);
            let mut random = Random(i as u64 + 20);
            let k = pair.floats(&random.floats(40 * 2 * 96, 2.0 * of_k));
            // Some cells are of another size.
            let mut v = random.floats(40 * 2 * 64, 2.0 * of_v);
            v.chunks_exact_mut(64).step_by(5).for_each(|cell| cell.iter_mut().for_each(|x| *x *= 1e-3));
            let v = pair.floats(&v);
            pair.run(&Op::StoreKv { cache, k, v, n: 40, start: 0 });
            let q = pair.floats(&random.floats(40 * 4 * 96, 2.0 * of_q));
            let out = pair.out(n * 4 * 64);
            pair.run(&Op::Attention { cache, spec, q, n, start: 40 - n, out });
            let [gpu, cpu] = pair.results(out, n * 4 * 64);
            for (at, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
                let error = (gpu - cpu).abs() / of_v;
                assert!(
                    error <= 5e-6,
                    "{ty} {of_q} {of_k} {of_v}, {architecture:?}: value {at} is {gpu}, not {cpu} ({error})"
                );
            }
        }
    }
}

#[test]
fn caches_that_are_too_small_are_refused() {
    let mut s = setup(&Case { capacity: 20, ..PLAIN }, 20, 20, 0);
    let out = s.pair.out(4 * 64);
    let (cache, spec, q) = (s.cache, s.spec, s.q);
    s.pair.refuse(&Op::Attention { cache, spec, q, n: 1, start: 20, out });
    s.pair.refuse(&Op::StoreKv { cache, k: q, v: q, n: 21, start: 0 });
}
