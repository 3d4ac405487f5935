//! Operations that become one kernel with the next ones: the bits are those of one after the other, and nobody else sees that
//! something waits.

use crate::common::driver::{State, TestDriver};
use crate::common::random::Random;
use backend::{BackendError, BufferId, Device, KvCache, NormKind, Op, RopePairs, RopeSpec, View};
use backend_cuda::{GpuConfig, GpuDevice, LateDevice};
use quant::GgmlType::{self, *};
use std::sync::{Arc, Mutex};

type Gpu = GpuDevice<TestDriver>;

fn gpu() -> (Gpu, Arc<Mutex<State>>) {
    let (driver, state) = TestDriver::new(State { exact: true, ..State::default() });
    (GpuDevice::new(driver, GpuConfig::default()), state)
}

/// A device that may wait, and one that is made to begin after every operation. Buffers have the same ids.
struct Twins {
    both: [Gpu; 2],
    states: [Arc<Mutex<State>>; 2],
    buffers: Vec<(BufferId, usize)>,
}

impl Twins {
    fn new() -> Twins {
        let [(one, of_one), (other, of_other)] = [gpu(), gpu()];
        Twins { both: [one, other], states: [of_one, of_other], buffers: Vec::new() }
    }

    fn bytes(&mut self, bytes: &[u8]) -> BufferId {
        let [id, other] = self.both.each_mut().map(|gpu| {
            let id = gpu.allocate(bytes.len() as u64).unwrap();
            gpu.write(id, 0, bytes).unwrap();
            id
        });
        assert_eq!(id, other);
        self.buffers.push((id, bytes.len()));
        id
    }

    fn floats(&mut self, values: &[f32]) -> View {
        View::new(self.bytes(bytemuck::cast_slice(values)))
    }

    /// Runs operations on both; how many kernels each of them took.
    fn run(&mut self, ops: &[Op<'_>]) -> [u64; 2] {
        let launches = |twins: &Twins| twins.states.each_ref().map(|state| state.lock().unwrap().launches);
        let before = launches(self);
        for op in ops {
            self.both[0].run(op).unwrap();
            self.both[1].run(op).unwrap();
            self.both[1].start().unwrap();
        }
        self.both[0].finish().unwrap();
        let after = launches(self);
        [after[0] - before[0], after[1] - before[1]]
    }

    /// Runs operations that are to be `expected` kernels, and compares all there is.
    fn check(&mut self, ops: &[Op<'_>], expected: u64, what: &str) {
        let [launches, alone] = self.run(ops);
        for (id, len) in self.buffers.clone() {
            let [one, other] = self.both.each_mut().map(|gpu| {
                let mut bytes = vec![0u8; len];
                gpu.read(id, 0, &mut bytes).unwrap();
                bytes
            });
            let differs = one.iter().zip(&other).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{what}: buffer {}", id.0);
        }
        assert_eq!((launches, alone), (expected, ops.len() as u64), "{what}");
    }
}

fn spec(pairs: RopePairs, dims: usize) -> RopeSpec {
    RopeSpec {
        pairs,
        dims,
        freq_base: 10000.0,
        freq_scale: 0.5,
        ext_factor: 0.0,
        attn_factor: 1.1,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 4096,
    }
}

/// What an attention does with its heads.
#[derive(Clone, Copy)]
struct Heads {
    n: usize,
    heads: [usize; 2],
    dim: usize,
    norm: Option<NormKind>,
    spec: RopeSpec,
    ty: GgmlType,
    dim_v: usize,
    start: usize,
}

const PLAIN: Heads = Heads {
    n: 1,
    heads: [2, 5],
    dim: 64,
    norm: None,
    spec: RopeSpec {
        pairs: RopePairs::Halves,
        dims: 64,
        freq_base: 500_000.0,
        freq_scale: 1.0,
        ext_factor: 0.0,
        attn_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 4096,
    },
    ty: F16,
    dim_v: 64,
    start: 3,
};

const CAPACITY: usize = 40;

fn cache(twins: &mut Twins, h: &Heads) -> KvCache {
    let [k, v] = [h.dim, h.dim_v].map(|dim| {
        let bytes = h.heads[0] * CAPACITY * h.ty.row_bytes(dim).unwrap();
        twins.bytes(&vec![0x55; bytes])
    });
    KvCache {
        k,
        v: Some(v),
        k_type: h.ty,
        v_type: h.ty,
        capacity: CAPACITY,
        head_count_kv: h.heads[0],
        head_dim_k: h.dim,
        head_dim_v: h.dim_v,
    }
}

/// Keys, then queries, in the order of the engine, and the cache.
fn heads(h: &Heads, seed: u64, expected: u64, what: &str) {
    let (mut twins, mut random) = (Twins::new(), Random(seed));
    let cache = cache(&mut twins, h);
    let mut views = [0; 2].map(|_| None);
    for (view, heads) in views.iter_mut().zip(h.heads) {
        let mut values = random.floats(h.n * heads * h.dim, 3.0);
        values[5] = f32::NAN;
        *view = Some((twins.floats(&values), heads));
    }
    let v = twins.floats(&random.floats(h.n * h.heads[0] * h.dim_v, 2.0));
    let positions: Vec<f32> = (0..h.n).map(|row| f32::from_bits((h.start + row) as u32)).collect();
    let positions = twins.floats(&positions);
    let factors: Vec<f32> = (0..h.spec.dims / 2).map(|_| 1.5 + random.float(1.0)).collect();
    let factors = (seed % 2 == 0).then(|| twins.floats(&factors));
    let weight = (seed % 3 != 0).then(|| twins.floats(&random.floats(h.dim, 1.0)));
    let bias = (seed % 4 == 0).then(|| twins.floats(&random.floats(h.dim, 1.0)));
    let mut ops = Vec::new();
    let [key, query] = views.map(Option::unwrap);
    for (x, heads) in [key, query] {
        if let Some(kind) = h.norm {
            let rows = h.n * heads;
            ops.push(Op::Norm { kind, input: x, rows, dim: h.dim, eps: 1e-5, weight, bias, out: x });
        }
        ops.push(Op::Rope { x, n: h.n, heads, head_dim: h.dim, spec: h.spec, positions, factors });
    }
    ops.push(Op::StoreKv { cache, k: key.0, v, n: h.n, start: h.start });
    twins.check(&ops, expected, what);
}

#[test]
fn heads_are_one_kernel() {
    for (i, ty) in [F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, IQ4_NL].into_iter().enumerate() {
        for (j, norm) in [None, Some(NormKind::Rms), Some(NormKind::Layer)].into_iter().enumerate() {
            let h = Heads { ty, norm, ..PLAIN };
            heads(&h, (i + j) as u64, 1, &format!("{ty} {norm:?}"));
        }
    }
    let (rms, layer) = (Some(NormKind::Rms), Some(NormKind::Layer));
    for (i, h) in [
        Heads { n: 7, norm: rms, ..PLAIN },
        Heads { n: 30, start: 20, ..PLAIN },
        Heads { dim: 128, spec: spec(RopePairs::Adjacent, 128), dim_v: 32, norm: rms, ..PLAIN },
        Heads { dim: 80, spec: spec(RopePairs::Halves, 32), n: 3, ..PLAIN },
        Heads { dim: 256, spec: spec(RopePairs::Adjacent, 100), norm: rms, heads: [1, 1], n: 2, ..PLAIN },
        Heads { heads: [4, 4], norm: rms, n: 2, ..PLAIN },
        Heads { dim: 320, spec: spec(RopePairs::Halves, 320), ..PLAIN },
        Heads { dim: 200, spec: spec(RopePairs::Halves, 200), norm: layer, ..PLAIN },
        Heads { dim: 256, spec: spec(RopePairs::Adjacent, 256), norm: layer, ..PLAIN },
    ]
    .into_iter()
    .enumerate()
    {
        heads(&h, i as u64, 1, &format!("case {i}"));
    }
    // So long a row is normalised by a block: keys' norm, keys; queries' norm, queries; the cache.
    heads(&Heads { dim: 320, spec: spec(RopePairs::Halves, 320), norm: rms, ..PLAIN }, 1, 5, "long heads");
}

/// As the engine rotates heads for caches of quantized types: keys, values, the cache, queries.
#[test]
fn rotations_of_heads_are_in_the_same_kernel() {
    let mut random = Random(12);
    for (i, (dim, dim_v, [block, block_v], n)) in
        [(64, 64, [64, 64], 1), (96, 160, [32, 32], 3), (128, 128, [128, 128], 1), (256, 64, [256, 32], 2)]
            .into_iter()
            .enumerate()
    {
        for norm in [false, true] {
            let mut twins = Twins::new();
            let h = Heads { dim, dim_v, ty: [Q8_0, Q4_0][i % 2], n, ..PLAIN };
            let cache = cache(&mut twins, &h);
            let [k, q] = h.heads.map(|heads| twins.floats(&random.floats(n * heads * dim, 2.0)));
            let v = twins.floats(&random.floats(n * h.heads[0] * dim_v, 2.0));
            let positions = twins.floats(&vec![f32::from_bits(77); n]);
            let other_v = twins.floats(&random.floats(n * h.heads[0] * dim_v, 2.0));
            let other_cache = self::cache(&mut twins, &h);
            let [keys, queries] = [(k, h.heads[0]), (q, h.heads[1])].map(|(x, heads)| {
                let (kind, rows, out) = (NormKind::Rms, n * heads, x);
                let spec = spec([RopePairs::Halves, RopePairs::Adjacent][i % 2], dim);
                [
                    Op::Norm { kind, input: x, rows, dim, eps: 1e-5, weight: None, bias: None, out },
                    Op::Rope { x, n, heads, head_dim: dim, spec, positions, factors: None },
                    Op::Hadamard { x, len: rows * dim, block },
                ]
            });
            let of_values = Op::Hadamard { x: v, len: n * h.heads[0] * dim_v, block: block_v };
            let store = Op::StoreKv { cache, k, v, n, start: 39 };
            let first = usize::from(!norm);
            let turned = [&keys[first..2], &queries[first..2]].concat();
            let all = [&turned[..], &[keys[2], of_values, store, queries[2]]].concat();
            twins.check(&all, 1, "all");
            let keys_alone = [&turned[..], &[keys[2], store]].concat();
            twins.check(&keys_alone, 1, "keys");
            twins.check(&[&turned[..], &[of_values, store]].concat(), 1, "values");
            twins.check(&[&turned[..], &[queries[2], keys[2], of_values, store]].concat(), 1, "queries first");
            twins.check(&[&turned[..], &[store, keys[2], queries[2]]].concat(), 3, "keys that are stored already");
            twins.check(&[&turned[..], &[keys[2], keys[2], store]].concat(), 3, "twice");
            twins.check(&[&turned[..], &[store, store]].concat(), 2, "stored twice");
            let elsewhere = Op::StoreKv { cache: other_cache, k, v: other_v, n, start: 3 };
            twins.check(&[&turned[..], &[store, elsewhere]].concat(), 2, "stored in two caches");
            twins.check(&[&turned[..], &[of_values, of_values, store]].concat(), 4, "values twice");
            let other = Op::Hadamard { x: v, len: n * h.heads[0] * dim_v - dim_v, block: block_v };
            twins.check(&[&turned[..], &[other, store]].concat(), 3, "a part of the values");
            let wide = Op::Hadamard { x: k, len: n * h.heads[0] * dim, block: 2 * block };
            if n * h.heads[0] * dim % (2 * block) == 0 {
                twins.check(&[&turned[..], &[wide, store]].concat(), 3, "blocks of several heads");
            }
            twins.check(&[keys[2], of_values, store, queries[2]], 4, "rotations alone");
        }
    }
}

/// Operations on heads that do not belong together.
#[test]
fn heads_that_differ_stay_apart() {
    let mut twins = Twins::new();
    let mut random = Random(6);
    let h = Heads { n: 2, ..PLAIN };
    let cache = cache(&mut twins, &h);
    let all = twins.floats(&random.floats(4000, 2.0));
    let more = twins.floats(&random.floats(1000, 2.0));
    let positions = twins.floats(&[f32::from_bits(7), f32::from_bits(9)]);
    let others = twins.floats(&[f32::from_bits(1); 2]);
    let rope = |x: View, heads: usize| {
        let (n, head_dim, spec) = (2, 64, h.spec);
        Op::Rope { x, n, heads, head_dim, spec, positions, factors: None }
    };
    let norm = |x: View, rows: usize, weight: Option<View>| Op::Norm {
        kind: NormKind::Rms,
        input: x,
        rows,
        dim: 64,
        eps: 1e-5,
        weight,
        bias: None,
        out: x,
    };
    let (k, q, v) = (all, all.at(256), all.at(1024));
    let store = Op::StoreKv { cache, k, v, n: 2, start: 38 };
    twins.check(&[rope(k, 2), rope(q, 3), store], 1, "side by side");
    twins.check(&[rope(q, 3), rope(k, 2), store], 1, "the other way around");
    twins.check(&[rope(k, 2), store], 1, "keys alone");
    twins.check(&[rope(q, 3), store], 2, "queries alone");
    twins.check(&[rope(q.at(256), 2), rope(k, 3), store], 2, "another number of heads is stored");
    twins.check(&[rope(k, 2), rope(q, 3), rope(v, 2), store], 3, "three of them: values turn too");
    twins.check(&[rope(k, 2), rope(k, 2), store], 2, "twice the same");
    twins.check(&[rope(k, 2), rope(k.at(255), 3), store], 3, "queries that begin within the keys");
    let Op::Rope { n, head_dim, spec: same, .. } = rope(k, 2) else { panic!() };
    for other in [
        Op::Rope { x: q, n, heads: 3, head_dim, spec: same, positions: others, factors: None },
        Op::Rope { x: q, n, heads: 3, head_dim, spec: same, positions, factors: Some(more) },
        Op::Rope { x: q, n, heads: 3, head_dim, spec: spec(RopePairs::Halves, 64), positions, factors: None },
        Op::Rope { x: q, n, heads: 3, head_dim, spec: spec(RopePairs::Adjacent, 64), positions, factors: None },
        Op::Rope { x: q, n, heads: 6, head_dim: 32, spec: spec(RopePairs::Halves, 32), positions, factors: None },
        Op::Rope { x: q, n: 1, heads: 6, head_dim, spec: same, positions, factors: None },
    ] {
        twins.check(&[rope(k, 2), other, store], 3, &format!("{other:?}"));
    }
    // Values within what turns, and factors and weights that are made by what comes before.
    let within = Op::StoreKv { cache, k, v: q.at(10), n: 2, start: 0 };
    twins.check(&[rope(k, 2), rope(q, 3), within], 2, "values that turned before");
    let made = Op::Rope { x: q, n, heads: 3, head_dim, spec: same, positions, factors: Some(k.at(7)) };
    twins.check(&[rope(k, 2), made], 2, "factors that turned before");
    twins.check(
        &[norm(k, 4, Some(more)), rope(k, 2), norm(q, 6, Some(k)), rope(q, 3), store],
        3,
        "a weight that turned",
    );
    twins.check(&[norm(k, 4, None), rope(k, 2), norm(q, 6, None), rope(q, 3), store], 1, "norms without weights");
    twins.check(&[norm(k, 4, Some(k.at(64))), rope(k, 2)], 2, "a weight that turns");
    twins.check(&[norm(k, 4, None), norm(q, 6, None), rope(k, 2), rope(q, 3)], 3, "norms first");
    twins.check(&[norm(k, 2, None), rope(k, 2), store], 2, "a norm of half of them");
    twins.check(&[rope(k, 2), norm(k, 4, None), store], 3, "a norm after");
    twins.check(&[norm(q, 6, None), rope(k, 2), store], 2, "a norm of others");
    twins.check(&[rope(k, 2), rope(q, 3), norm(q, 6, None), store], 3, "a norm between");
    let scale = Op::Scale { x: q, factor: 1.5, len: 3 };
    twins.check(&[rope(k, 2), rope(q, 3), scale, store], 3, "another operation between");
}

/// A residual and its norm.
#[test]
fn a_sum_and_its_norm_are_one_kernel() {
    for (i, (rows, dim)) in
        [(1, 64), (3, 100), (1, 256), (2, 257), (40, 96), (1, 1500), (3, 2048), (2, 2500)].into_iter().enumerate()
    {
        for kind in [NormKind::Rms, NormKind::Layer] {
            for (place, [sum, out]) in [[0, 3], [2, 3], [2, 2], [0, 0], [0, 1], [1, 0], [2, 1]].into_iter().enumerate()
            {
                let mut twins = Twins::new();
                let mut random = Random(i as u64);
                let len = rows * dim;
                let views = [0; 4].map(|_| {
                    let mut values = random.floats(len + 1, 2.0);
                    values[random.below(len)] *= 1e20;
                    twins.floats(&values)
                });
                let weight = (i % 2 == 0).then(|| twins.floats(&random.floats(dim, 2.0)));
                let bias = (i % 3 == 0).then(|| twins.floats(&random.floats(dim, 2.0)));
                let [a, b, ..] = views;
                let sum = views[sum];
                let scale = if i % 2 == 0 { 1.0 } else { 0.3 };
                let add = Op::Add { a, b, scale, len, out: sum };
                let norm = Op::Norm { kind, input: sum, rows, dim, eps: 1e-5, weight, bias, out: views[out] };
                twins.check(&[add, norm], 1, &format!("{kind:?} {rows}x{dim}, place {place}"));
            }
        }
    }
}

#[test]
fn sums_that_are_read_otherwise_stay_apart() {
    let mut twins = Twins::new();
    let mut random = Random(8);
    let all = twins.floats(&random.floats(2000, 2.0));
    let (rows, dim, len) = (3, 64, 192);
    let (a, b, c, d) = (all, all.at(300), all.at(600), all.at(900));
    let add = Op::Add { a, b, scale: 1.0, len, out: a };
    let norm = |input: View, out: View, weight: Option<View>| Op::Norm {
        kind: NormKind::Rms,
        input,
        rows,
        dim,
        eps: 1e-5,
        weight,
        bias: None,
        out,
    };
    twins.check(&[add, norm(a, c, None)], 1, "a norm of it");
    twins.check(&[add, norm(b, c, None)], 2, "a norm of something else");
    twins.check(&[add, norm(a.at(64), c, None)], 2, "a norm of a part");
    twins.check(&[add, norm(a, b.at(1), None)], 2, "a norm over what other rows are made of");
    twins.check(&[add, norm(a, b.at(64), None)], 2, "a norm a row further on");
    twins.check(&[add, norm(a, c, Some(a.at(5)))], 2, "a weight that is a sum");
    let apart = Op::Add { a, b, scale: 1.0, len, out: d };
    twins.check(&[apart, norm(d, a, Some(d))], 2, "a weight within the sum");
    twins.check(&[add, add, norm(a, c, None)], 2, "two sums");
    let fewer = Op::Add { a, b, scale: 1.0, len: 128, out: a };
    twins.check(&[fewer, norm(a, c, None)], 2, "a sum of fewer");
    let scale = Op::Scale { x: c, factor: 2.0, len: 5 };
    twins.check(&[add, scale, norm(a, c, None)], 3, "another operation between");
    let rope = Op::Rope {
        x: d,
        n: 1,
        heads: 1,
        head_dim: 64,
        spec: PLAIN.spec,
        positions: twins.floats(&[f32::from_bits(3)]),
        factors: None,
    };
    twins.check(&[add, rope, norm(a, c, None)], 3, "heads between");
    twins.check(&[rope, add, norm(a, c, None)], 2, "heads before");
}

/// A device with something that waits: `b` is added to `a`, 8 times 1 + 2.
fn waiting() -> (Gpu, Arc<Mutex<State>>, [View; 2]) {
    let (mut gpu, state) = gpu();
    let views = [1.0f32, 2.0].map(|x| {
        let view = View::new(gpu.allocate(32).unwrap());
        gpu.write(view.buffer, 0, bytemuck::cast_slice(&[x; 8])).unwrap();
        view
    });
    let [a, b] = views;
    gpu.run(&Op::Add { a, b, scale: 1.0, len: 8, out: a }).unwrap();
    assert_eq!(state.lock().unwrap().launches, 0, "it waits");
    (gpu, state, views)
}

fn values(gpu: &mut Gpu, view: View) -> Vec<f32> {
    crate::common::pair::read(gpu, view, 8)
}

#[test]
fn everything_else_comes_after_what_waits() {
    type Next = fn(&mut Gpu, [View; 2]);
    let nexts: [(&str, Next); 9] = [
        ("read", |gpu, [_, b]| assert_eq!(values(gpu, b), [2.0; 8])),
        ("write", |gpu, [_, b]| gpu.write(b.buffer, 0, &[0; 32]).unwrap()),
        ("write beside", |gpu, [_, b]| gpu.write_beside(b.buffer, 0, &[0; 32]).unwrap()),
        ("turn", |gpu, _| gpu.turn().unwrap()),
        ("start", |gpu, _| gpu.start().unwrap()),
        ("finish", |gpu, _| gpu.finish().unwrap()),
        ("free", |gpu, [_, b]| gpu.free(b.buffer)),
        ("allocate", |gpu, _| assert!(gpu.allocate(32).is_ok())),
        ("adopt", |gpu, _| assert!(gpu.adopt(Arc::new(vec![0u8; 32])).is_ok())),
    ];
    for (what, next) in nexts {
        let (mut gpu, state, views) = waiting();
        next(&mut gpu, views);
        assert_eq!(state.lock().unwrap().launches, 1, "{what}");
        assert_eq!(values(&mut gpu, views[0]), [3.0; 8], "{what}");
    }
    // What is asked of a device that has done nothing yet.
    let (mut gpu, state, [a, _]) = waiting();
    gpu.run(&Op::Scale { x: a, factor: 0.5, len: 8 }).unwrap();
    assert_eq!(state.lock().unwrap().launches, 2);
    assert_eq!(values(&mut gpu, a), [1.5; 8]);
}

#[test]
fn copies_come_after_what_waits_on_both_devices() {
    let (mut to, of_to, [a, _]) = waiting();
    let (mut from, of_from, [other, _]) = waiting();
    // The emulator has no such copies, but what waited is gone from both.
    assert!(!to.copy_from((a.buffer, 0), &mut from, (other.buffer, 0), 32));
    assert_eq!([of_to, of_from].map(|state| state.lock().unwrap().launches), [1, 1]);
}

#[test]
fn an_operation_that_is_refused_changes_nothing_of_what_waits() {
    let (mut gpu, _, [a, b]) = waiting();
    let kind = NormKind::Rms;
    let refused = Op::Norm { kind, input: a, rows: 1, dim: 9, eps: 0.0, weight: None, bias: None, out: a };
    assert!(matches!(gpu.run(&refused), Err(BackendError::Invalid { .. })));
    let refused = Op::Rope { x: b, n: 1, heads: 1, head_dim: 8, spec: PLAIN.spec, positions: a, factors: None };
    assert!(matches!(gpu.run(&refused), Err(BackendError::Invalid { .. })));
    assert_eq!(values(&mut gpu, a), [3.0; 8]);
}

/// It shows at the next call at the latest, and nothing is asked of the driver after that.
#[test]
fn a_gpu_that_is_lost_while_something_waits() {
    type Next = fn(&mut Gpu, View) -> Result<(), BackendError>;
    let nexts: [Next; 5] = [
        |gpu, a| gpu.read(a.buffer, 0, &mut [0; 32]),
        |gpu, a| gpu.write(a.buffer, 0, &[0; 32]),
        |gpu, _| gpu.finish(),
        |gpu, _| gpu.start(),
        |gpu, a| gpu.run(&Op::Scale { x: a, factor: 0.5, len: 8 }),
    ];
    for next in nexts {
        let (mut gpu, state, [a, b]) = waiting();
        state.lock().unwrap().lose_after = Some(0);
        assert!(matches!(next(&mut gpu, a), Err(BackendError::Lost { .. })));
        assert_eq!(state.lock().unwrap().launches, 1);
        // Nothing is held for one that is lost.
        let again = gpu.run(&Op::Add { a, b, scale: 1.0, len: 8, out: a });
        assert!(matches!(again, Err(BackendError::Lost { .. })));
        gpu.free(a.buffer);
        assert_eq!(state.lock().unwrap().launches, 1);
    }
}

#[test]
fn a_device_that_opened_late_waits_too() {
    let (gpu, state, [a, _]) = waiting();
    let mut late = LateDevice::new(String::new(), Box::new(|| Err(String::new())), Box::new(|| 0)).with(gpu);
    late.finish().unwrap();
    assert_eq!(state.lock().unwrap().launches, 1);
    assert_eq!(crate::common::pair::read(&mut late, a, 8), [3.0; 8]);
}
