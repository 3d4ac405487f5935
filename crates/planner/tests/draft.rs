//! A draft model's weights and KV cache are counted, wherever it runs.

#![allow(clippy::unwrap_used)]

use planner::{AcceleratorFacts, Facts, Fits, GpuLayers, Plan, ReasonCode, Wishes, plan, plan_with_draft};
use quant::GgmlType;
use test_models::ModelSpec;

const GIB: u64 = 1 << 30;

fn model(spec: &ModelSpec) -> model::Model {
    let (header, file_len) = spec.header();
    model::describe(&gguf::Gguf::parse(&header, file_len).unwrap()).unwrap()
}

/// An eighth of the large one's layers.
fn draft() -> ModelSpec {
    ModelSpec { n_layer: 4, n_embd: 2048, n_head: 16, n_ff: 4096, ..ModelSpec::llama3_8b(GgmlType::Q4_K) }
}

fn gpu(memory_free: u64) -> AcceleratorFacts {
    AcceleratorFacts { memory_free, overhead: 300 << 20, margin: 200 << 20, ..AcceleratorFacts::default() }
}

fn facts(ram: u64, vram: Option<u64>) -> Facts {
    let accelerators = vram.into_iter().map(gpu).collect();
    Facts { ram_available: ram, accelerators, ram_bandwidth: Some(40e9), ..Facts::default() }
}

fn both(facts: &Facts, wishes: &Wishes) -> (Plan, Plan) {
    let (large, small) = (model(&ModelSpec::llama3_8b(GgmlType::Q4_K)), model(&draft()));
    let with = plan_with_draft(&large, Some(&small), facts, wishes).unwrap();
    let alone = plan(&large, facts, wishes).unwrap();
    assert_eq!(plan_with_draft(&large, None, facts, wishes).unwrap(), alone);
    assert!(with.reasons.iter().any(|reason| reason.code == ReasonCode::DraftModel && reason.needed > Some(GIB / 4)));
    (with, alone)
}

#[test]
fn in_ram_its_weights_and_cache_count() {
    let (with, alone) = both(&facts(32 * GIB, None), &Wishes::default());
    let draft = with.draft.as_ref().unwrap();
    assert_eq!((with.fits, draft.gpu_layers, draft.accelerator.total()), (Fits::Ram, 0, 0));
    // 8192 tokens x 4 layers x 8 heads x 128 values x 2 bytes, for K and V.
    assert_eq!(draft.host.kv, 2 * 8192 * 4 * 8 * 128 * 2);
    assert_eq!(draft.layout.totals(0).host, draft.host);
    assert_eq!(with.host_total(), alone.host_total() + draft.host.total());
    // Where both do not fit, the large one is read from disk, and its budget is what the small one leaves.
    let (with, alone) = both(&facts(alone.host_total(), None), &Wishes::default());
    assert_eq!((alone.fits, with.fits), (Fits::Ram, Fits::Disk));
    assert_eq!(alone.host_ram - with.host_ram, with.draft.as_ref().unwrap().host.total());
    assert!(with.residency.is_some());
}

#[test]
fn in_video_memory_it_takes_the_room_of_layers() {
    let (with, alone) = both(&facts(32 * GIB, Some(5 * GIB)), &Wishes::default());
    let draft = with.draft.as_ref().unwrap();
    assert_eq!(draft.gpu_layers, 5);
    assert!(with.gpu_layers > 0 && with.gpu_layers < alone.gpu_layers, "{} {}", with.gpu_layers, alone.gpu_layers);
    assert!(with.accelerator_total() <= 5 * GIB - (200 << 20));
    assert!(with.accelerator_total() > with.on_accelerators().total() + draft.accelerator.weights);
    // Layers that were asked for come first; without any, nothing is there.
    for layers in [alone.max_gpu_layers, 0] {
        let wishes = Wishes { gpu_layers: GpuLayers::Fixed(layers), ..Wishes::default() };
        let (with, _) = both(&facts(32 * GIB, Some(5 * GIB)), &wishes);
        assert_eq!((with.gpu_layers, with.draft.unwrap().gpu_layers), (layers, 0));
    }
    // Too little for both.
    let (with, _) = both(&facts(32 * GIB, Some(GIB)), &Wishes::default());
    assert_eq!(with.draft.unwrap().gpu_layers, 0);
}

#[test]
fn a_context_that_becomes_shorter_is_that_of_both() {
    let (_, alone) = both(&facts(32 * GIB, None), &Wishes::default());
    let buffers = alone.host.kv + alone.host.compute + alone.host_other;
    let (with, alone) = both(&facts(buffers + 1, None), &Wishes::default());
    assert!(with.context < alone.context, "{} {}", with.context, alone.context);
    assert_eq!(with.draft.unwrap().layout.params.context, with.context);
}

/// With several accelerators it is whole on one that has layers of the model besides.
#[test]
fn of_several_accelerators_one_has_it_beside_layers() {
    for vram in [[8, 1], [1, 8], [4, 4], [3, 5]] {
        let mut facts = facts(32 * GIB, None);
        facts.accelerators = vram.map(|gib| gpu(gib * GIB)).to_vec();
        let (with, alone) = both(&facts, &Wishes::default());
        let draft = with.draft.as_ref().unwrap();
        let (on, taken) = (draft.on.unwrap(), draft.accelerator.total() + draft.accelerator_other);
        assert!(draft.gpu_layers == 5 && with.shares[on].layers > 0, "{vram:?}: {on}");
        assert!(with.gpu_layers > 0 && with.gpu_layers <= alone.gpu_layers);
        for (number, share) in with.shares.iter().enumerate() {
            let beside = if number == on { taken } else { 0 };
            assert!(share.total() + beside <= facts.accelerators[number].available(), "{vram:?}, {number}");
        }
        let shares: u64 = with.shares.iter().map(|share| share.total()).sum();
        assert_eq!(with.accelerator_total(), shares + taken);
    }
}
