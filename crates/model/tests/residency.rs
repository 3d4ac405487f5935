//! What stays in RAM where not all weights fit.

#![allow(clippy::unwrap_used)]

use model::{Layout, LayoutParams, Model, Placement, Residency};
use quant::GgmlType;
use test_models::ModelSpec;

fn model(spec: &ModelSpec) -> (Model, Layout) {
    let (header, file_len) = spec.header();
    let model = model::describe(&gguf::Gguf::parse(&header, file_len).unwrap()).unwrap();
    let (kv_type_k, kv_type_v) = (GgmlType::F16, GgmlType::F16);
    let params = LayoutParams { context: 512, ubatch: 64, kv_type_k, kv_type_v, logits_rows: 1 };
    let layout = Layout::new(&model, params).unwrap();
    (model, layout)
}

fn at(layout: &Layout, gpu_layers: usize) -> Placement {
    Placement::new(gpu_layers, layout.block_count())
}

fn share(residency: &Residency, wanted: impl Fn(&model::Piece) -> bool) -> Vec<u64> {
    let bytes = |layer: &Vec<model::Piece>| layer.iter().filter(|p| wanted(p)).map(|p| p.tensor.bytes).sum();
    residency.layers.iter().map(bytes).collect()
}

#[test]
fn a_model_that_fits_is_left_alone() {
    let (model, layout) = model(&ModelSpec::llama3_8b(GgmlType::Q4_K));
    for gpu_layers in [0, 5, 33] {
        let total = layout.totals(gpu_layers).host.total();
        assert_eq!(Residency::new(&model, &layout, &at(&layout, gpu_layers), total), None);
        assert!(Residency::new(&model, &layout, &at(&layout, gpu_layers), total - 1).is_some());
    }
}

#[test]
fn what_is_in_ram_is_never_more_than_there_is() {
    for spec in [ModelSpec::llama3_8b(GgmlType::Q4_K), ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K)] {
        let (model, layout) = model(&spec);
        for (gpu_layers, cpu_moe) in [(0, 0), (7, 0), (32, 0), (49, 12), (33, 48)] {
            let placement = at(&layout, gpu_layers).with_cpu_moe(cpu_moe);
            let host = layout.placed(&placement).host;
            if host.compute == 0 {
                continue;
            }
            for percent in [0, 1, 5, 20, 40, 60, 80, 95, 99] {
                let ram = host.total() / 100 * percent;
                let residency = Residency::new(&model, &layout, &placement, ram).unwrap();
                let kept: u64 = share(&residency, |piece| piece.kept).iter().sum();
                let streamed: u64 = share(&residency, |piece| !piece.kept).iter().sum();
                assert_eq!(residency.streamed, streamed);
                // Norms are kept whatever happens; they are small.
                let norms = residency.kept - kept;
                assert!(norms < 16 << 20, "{norms}");
                let held = kept + residency.window + residency.experts + host.kv + host.compute;
                assert!(held <= ram.max(host.kv + host.compute), "{held} of {ram}");
                // Every matrix of the layers here is there once, kept or not.
                let experts = residency.all_experts;
                let lookups = layout.embedding + layout.per_layer_input;
                assert_eq!(norms + kept + streamed + experts + lookups, host.weights + tied(&layout, gpu_layers));
                let read = residency.bytes_per_token();
                assert!(read >= streamed && read <= streamed + residency.all_experts / 16, "8 of 128 are used");
            }
        }
    }
}

/// The output layer's bytes where they are the embedding's.
fn tied(layout: &Layout, gpu_layers: usize) -> u64 {
    if layout.tied && gpu_layers <= layout.block_count() { layout.embedding } else { 0 }
}

#[test]
fn most_of_the_ram_is_used() {
    let (model, layout) = model(&ModelSpec::llama3_8b(GgmlType::Q4_K));
    let host = layout.totals(0).host;
    for percent in [30, 60, 90] {
        let ram = host.total() / 100 * percent;
        let residency = Residency::new(&model, &layout, &at(&layout, 0), ram).unwrap();
        let missing = host.total() - ram;
        assert!(residency.streamed < missing + host.weights / 8, "{percent} %: {} {missing}", residency.streamed);
    }
}

#[test]
fn what_is_read_is_spread_over_the_layers() {
    let (model, layout) = model(&ModelSpec::llama3_8b(GgmlType::Q4_K));
    let residency = Residency::new(&model, &layout, &at(&layout, 0), layout.totals(0).host.total() * 6 / 10).unwrap();
    let mut streamed = share(&residency, |piece| !piece.kept);
    assert_eq!(streamed.pop(), Some(0), "the output layer stays");
    let largest = residency.layers.iter().flatten().map(|piece| piece.tensor.bytes).max().unwrap();
    let mean = residency.streamed / streamed.len() as u64;
    for pair in streamed.windows(2) {
        assert!((pair[0] + pair[1]).abs_diff(2 * mean) <= largest, "{streamed:?}");
        assert!(pair[0] + pair[1] <= residency.window, "two layers fit into the window: {streamed:?}");
    }
}

#[test]
fn of_a_mixture_everything_but_the_experts_stays() {
    let (model, layout) = model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K));
    let residency = Residency::new(&model, &layout, &at(&layout, 0), layout.totals(0).host.total() * 6 / 10).unwrap();
    assert_eq!((residency.streamed, residency.window), (0, 0));
    let cached = residency.experts as f64 / residency.all_experts as f64;
    assert!((0.4..0.6).contains(&cached), "{cached}");
    // 8 of 128, of which those that were not used lately come from disk.
    let expected = residency.all_experts as f64 / 16.0 * (1.0 - cached);
    assert!((residency.bytes_per_token() as f64 / expected - 1.0).abs() < 1e-3);
}

#[test]
fn a_batch_reads_more_experts_than_a_token_but_each_once() {
    let (model, layout) = model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K));
    let residency = Residency::new(&model, &layout, &at(&layout, 0), layout.totals(0).host.total() * 6 / 10).unwrap();
    let missing = residency.all_experts - residency.experts;
    let reads = [1, 2, 16, 512].map(|tokens| residency.bytes_per_batch(tokens));
    assert_eq!(reads[0], residency.bytes_per_token());
    // Two tokens share 1 in 16 of what they use.
    assert!((reads[1] as f64 / reads[0] as f64 - 2.0 + 1.0 / 16.0).abs() < 1e-3, "{reads:?}");
    assert!(reads[2] > reads[1] && reads[2] < 16 * reads[0], "{reads:?}");
    assert!(missing - reads[3] < missing / 1000, "{reads:?} {missing}");
}
