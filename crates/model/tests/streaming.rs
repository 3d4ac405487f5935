//! When it pays to compute layers of the host on the accelerator.

#![allow(clippy::unwrap_used)]

use model::{Layout, LayoutParams, Model, Placement, STREAM_SLOTS, StreamRates, Streaming};
use quant::GgmlType;
use test_models::ModelSpec;

/// A usual CPU, GPU and PCIe 3.0.
const RATES: StreamRates = StreamRates { host: 1e12, accelerator: 20e12, upload: 12e9 };
const BLOCKS: usize = 32;

fn model(spec: &ModelSpec, ubatch: u32) -> (Model, Layout) {
    let (header, file_len) = spec.header();
    let model = model::describe(&gguf::Gguf::parse(&header, file_len).unwrap()).unwrap();
    let (kv_type_k, kv_type_v) = (GgmlType::F16, GgmlType::F16);
    let params = LayoutParams { context: 16384, ubatch, kv_type_k, kv_type_v, logits_rows: 1 };
    let layout = Layout::new(&model, params).unwrap();
    (model, layout)
}

fn streaming(spec: &ModelSpec, ubatch: u32, placement: Placement, rates: StreamRates) -> Option<Streaming> {
    let (model, layout) = model(spec, ubatch);
    Streaming::new(&model, &layout, &placement, &|_| true, rates)
}

fn dense(ubatch: u32, gpu_layers: usize, rates: StreamRates) -> Option<Streaming> {
    streaming(&ModelSpec::llama3_8b(GgmlType::Q4_K), ubatch, Placement::new(gpu_layers, BLOCKS), rates)
}

/// By hand: a layer of Llama 3 8B has 218.1 M weights of 4.5 bits, which take 10.2 ms of copying and 0.218 ms of arithmetic for
/// each token on the CPU; copies of 16 layers take the time of 17.
#[test]
fn the_break_even_follows_from_what_was_measured() {
    let adds = 2.0 * 4096.0 * 4096.0 + 2.0 * 4096.0 * 1024.0 + 3.0 * 4096.0 * 14336.0;
    let (weights, cell) = (adds * 4.5 / 8.0, 2.0 * 8.0 * 128.0 * 2.0);
    let by_hand = |rates: StreamRates, start: f64, layers: f64| {
        let copies = (weights + cell * start) / rates.upload * (layers + 1.0) / layers;
        (copies / (adds / rates.host - cell / rates.upload)).ceil() as u32
    };
    let of = |rates, gpu_layers| dense(512, gpu_layers, rates).unwrap();
    assert_eq!((by_hand(RATES, 0.0, 16.0), of(RATES, 16).break_even(0)), (50, Some(50)));
    assert_eq!(
        (by_hand(RATES, 0.0, 1.0), of(RATES, 31).break_even(0)),
        (94, Some(94)),
        "nothing hides one layer's copy"
    );
    let slow = StreamRates { upload: 3e9, ..RATES };
    assert_eq!(of(slow, 16).break_even(0), Some(by_hand(slow, 0.0, 16.0)));
    let fast_cpu = StreamRates { host: 4e12, ..RATES };
    assert_eq!(of(fast_cpu, 16).break_even(0), Some(by_hand(fast_cpu, 0.0, 16.0)));
    // What is in the cache goes along.
    assert_eq!((by_hand(RATES, 8192.0, 16.0), of(RATES, 16).break_even(8192)), (64, Some(64)));
    for (tokens, start, pays) in [(49, 0, false), (50, 0, true), (63, 8192, false), (64, 8192, true)] {
        assert_eq!(of(RATES, 16).pays(tokens, start), pays, "{tokens} at {start}");
    }
    // The accelerator's arithmetic counts where it takes longer than the copies: 512 tokens in 11.2 ms at 10 T/s.
    let seconds = |accelerator| of(StreamRates { accelerator, ..RATES }, 16).seconds(512, 0);
    assert!(seconds(10e12) > 1.05 * seconds(20e12) && seconds(20e12) < 1.001 * seconds(200e12));
}

#[test]
fn what_never_pays_is_not_streamed() {
    assert_eq!(dense(49, 16, RATES).unwrap().break_even(0), None, "no micro-batch is large enough");
    assert_eq!(dense(50, 16, RATES).unwrap().break_even(0), Some(50));
    let weak = StreamRates { accelerator: 0.9e12, ..RATES };
    assert_eq!(dense(512, 16, weak).unwrap().break_even(0), None, "the accelerator is the slower one");
    assert!(dense(512, 0, RATES).is_none(), "no layers there are meant to be there");
    assert!(dense(512, 33, RATES).is_none() && dense(512, 32, RATES).is_none(), "nothing is on the host");
    for rates in [StreamRates { upload: f64::NAN, ..RATES }, StreamRates { host: 0.0, ..RATES }] {
        assert!(dense(512, 16, rates).is_none());
    }
}

#[test]
fn slots_hold_the_largest_layer_and_experts_alone() {
    let (_, layout) = model(&ModelSpec::llama3_8b(GgmlType::Q4_K), 512);
    let bytes = &layout.layers[0];
    let slot = dense(512, 16, RATES).unwrap().slot;
    assert!((bytes.device_weights..bytes.device_weights + 12 * 256).contains(&slot.weights), "{slot:?}");
    assert_eq!((slot.k, slot.v, slot.state), (bytes.k, bytes.v, 0));
    assert_eq!(slot.total(), STREAM_SLOTS as u64 * (slot.weights + slot.k + slot.v));
    // A mixture with everything there but the experts of the first 20 layers: no caches go.
    let spec = ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K);
    let (moe, layout) = model(&spec, 512);
    let blocks = layout.block_count();
    let all = streaming(&spec, 512, Placement::new(blocks + 1, blocks).with_cpu_moe(20), RATES).unwrap();
    assert_eq!(all.layers().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    let experts = layout.layers[0].device_experts;
    assert!((experts..experts + 4 * 256).contains(&all.slot.weights) && all.slot.k + all.slot.v == 0, "{:?}", all.slot);
    assert_eq!(all.adds_per_token(), 20 * moe.layers[0].expert_multiply_adds_per_token());
    // 128 experts are copied for the arithmetic of 8: 16 times the tokens of a dense layer.
    assert_eq!(all.break_even(0), None);
    let long = streaming(&spec, 2048, Placement::new(blocks + 1, blocks).with_cpu_moe(20), RATES).unwrap();
    assert!((700..1000).contains(&long.break_even(0).unwrap()), "{:?}", long.break_even(0));
}

#[test]
fn layers_that_the_accelerator_lacks_stay_on_the_host() {
    let (model, layout) = model(&ModelSpec::llama3_8b(GgmlType::Q4_K), 512);
    let of = |can: &dyn Fn(usize) -> bool| Streaming::new(&model, &layout, &Placement::new(16, BLOCKS), can, RATES);
    assert!(of(&|_| false).is_none());
    assert_eq!(of(&|index| index % 4 == 1).unwrap().layers().collect::<Vec<_>>(), [1, 5, 9, 13]);
}
