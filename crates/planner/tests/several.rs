//! Layers on more than one accelerator.

#![allow(clippy::unwrap_used)]

use model::{Place, Split};
use planner::{AcceleratorFacts, Facts, Fits, GpuLayers, Plan, ReasonCode, Wishes, plan, plan_placed};
use quant::GgmlType;
use test_models::ModelSpec;

const GIB: u64 = 1 << 30;
const OVERHEAD: u64 = 300 << 20;
const MARGIN: u64 = 200 << 20;

fn model(spec: &ModelSpec) -> model::Model {
    let (header, file_len) = spec.header();
    model::describe(&gguf::Gguf::parse(&header, file_len).unwrap()).unwrap()
}

/// Accelerators with so much free memory each, in hundredths of a GiB.
fn facts(vram: &[u64]) -> Facts {
    let gpu = |(number, hundredths): (usize, &u64)| AcceleratorFacts {
        name: format!("card {number}"),
        memory_free: hundredths * GIB / 100,
        overhead: OVERHEAD,
        margin: MARGIN,
        bandwidth: Some(400e9),
        ..AcceleratorFacts::default()
    };
    Facts {
        ram_available: 64 * GIB,
        accelerators: vram.iter().enumerate().map(gpu).collect(),
        ram_bandwidth: Some(40e9),
        ..Facts::default()
    }
}

fn wish(layers: u32) -> Wishes {
    Wishes { gpu_layers: GpuLayers::Fixed(layers), ..Wishes::default() }
}

fn plan_8b(vram: &[u64], wishes: &Wishes) -> Plan {
    let plan = plan(&model(&ModelSpec::llama3_8b(GgmlType::Q4_K)), &facts(vram), wishes).unwrap();
    check(&plan);
    plan
}

fn layers(plan: &Plan) -> Vec<u32> {
    plan.shares.iter().map(|share| share.layers).collect()
}

fn has(plan: &Plan, code: ReasonCode) -> bool {
    plan.reasons.iter().any(|reason| reason.code == code)
}

/// What holds of every plan.
fn check(plan: &Plan) {
    assert_eq!(layers(plan).iter().sum::<u32>(), plan.gpu_layers);
    let totals = plan.layout.placed(&plan.placement);
    for (number, share) in plan.shares.iter().enumerate() {
        assert_eq!(share.parts, totals.accelerator(number), "one count of bytes");
        assert_eq!(share.layers as usize, plan.placement.count(Place::Accelerator(number)));
        assert_eq!(share.other, if share.layers > 0 { OVERHEAD } else { 0 }, "only where there are layers");
        assert!(plan.fits == Fits::No || share.total() <= share.available, "{share:?}");
    }
    assert_eq!(plan.host, totals.host);
    let used = layers(plan).iter().filter(|layers| **layers > 0).count();
    assert_eq!(has(plan, ReasonCode::SeveralAccelerators), used > 1);
}

#[test]
fn a_model_that_one_holds_stays_on_one() {
    for (vram, expected) in [(&[800, 800][..], [33, 0]), (&[400, 800], [0, 33]), (&[800, 400], [33, 0])] {
        let plan = plan_8b(vram, &Wishes::default());
        assert_eq!((plan.fits, layers(&plan)), (Fits::Gpu, expected.to_vec()), "{vram:?}");
    }
    // So do some of its layers, where no more are wished.
    assert_eq!(layers(&plan_8b(&[400, 400], &wish(12))), [12, 0]);
}

#[test]
fn several_share_what_one_does_not_hold_by_what_is_free() {
    let alone = plan_8b(&[400], &Wishes::default());
    assert!(alone.gpu_layers < 33);
    for vram in [&[400, 400][..], &[500, 300], &[300, 500], &[300, 250, 250], &[500, 20, 400]] {
        let plan = plan_8b(vram, &Wishes::default());
        assert_eq!((plan.fits, plan.gpu_layers, plan.max_gpu_layers), (Fits::Gpu, 33, 33), "{vram:?}");
        // Which part of what is free after its overhead each has: alike, to a layer.
        let part = |share: &planner::Share| {
            let free = share.available.saturating_sub(OVERHEAD) as f64;
            (share.total() - share.other) as f64 / free
        };
        let used: Vec<&planner::Share> = plan.shares.iter().filter(|share| share.layers > 0).collect();
        let (least, most) = used.iter().map(|share| part(share)).fold((1f64, 0f64), |(a, b), x| (a.min(x), b.max(x)));
        assert!(most - least < 0.25, "{vram:?}: {least} {most} {:?}", layers(&plan));
        assert!(used.len() > 1);
    }
    // One that has no room for a layer is left out.
    assert_eq!(layers(&plan_8b(&[500, 20, 400], &Wishes::default()))[1], 0);
    // As few as it takes.
    let three = plan_8b(&[400, 400, 400], &Wishes::default());
    assert!(layers(&three)[0] > 0 && layers(&three)[1] > 0 && layers(&three)[2] == 0, "{:?}", layers(&three));
}

#[test]
fn the_slider_counts_the_layers_of_all() {
    let vram = [200, 200];
    let alone = plan_8b(&vram[..1], &Wishes::default());
    let both = plan_8b(&vram, &Wishes::default());
    assert_eq!(both.fits, Fits::Split);
    assert!(both.max_gpu_layers > alone.max_gpu_layers && both.max_gpu_layers < 33);
    assert_eq!((both.recommended_gpu_layers, both.gpu_layers), (both.max_gpu_layers, both.max_gpu_layers));
    for wanted in 0..=33 {
        let plan = plan_8b(&vram, &wish(wanted));
        assert_eq!(plan.gpu_layers, wanted);
        assert_eq!(plan.fits == Fits::No, wanted > both.max_gpu_layers, "{wanted}");
        // Neighbours stay together.
        assert!(plan.placement.crossings() <= 1);
    }
    // What is too much is shared out, too.
    let beyond = plan_8b(&vram, &wish(33));
    assert!(layers(&beyond).iter().all(|layers| *layers > 10), "{:?}", layers(&beyond));
}

#[test]
fn one_that_has_gone_is_given_nothing() {
    assert_eq!(layers(&plan_8b(&[0, 800], &Wishes::default())), [0, 33]);
    assert_eq!(layers(&plan_8b(&[800, 0], &Wishes::default())), [33, 0]);
    assert_eq!(layers(&plan_8b(&[0, 200], &wish(5))), [0, 5]);
    let none = plan_8b(&[0, 0], &Wishes::default());
    assert!(has(&none, ReasonCode::NoAccelerator) && none.gpu_layers == 0);
}

#[test]
fn experts_go_to_ram_only_as_far_as_all_together_are_too_small() {
    let mixture = model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K));
    let with = |vram: &[u64], wishes: &Wishes| {
        let plan = plan(&mixture, &facts(vram), wishes).unwrap();
        check(&plan);
        plan
    };
    let (one, two) = (with(&[800], &Wishes::default()), with(&[800, 800], &Wishes::default()));
    assert!(
        two.experts_apart < one.experts_apart && two.experts_apart > 0,
        "{} {}",
        two.experts_apart,
        one.experts_apart
    );
    assert_eq!((two.gpu_layers, layers(&two).iter().all(|layers| *layers > 0)), (49, true));
    let fixed = with(&[800, 800], &Wishes { cpu_moe: Some(40), ..wish(49) });
    assert_eq!((fixed.cpu_moe, fixed.experts_apart, fixed.gpu_layers), (40, 40, 49));
    let whole = with(&[1200, 1200], &Wishes::default());
    assert_eq!((whole.fits, whole.experts_apart), (Fits::Gpu, 0));
}

#[test]
fn a_plan_can_be_for_layers_where_they_are() {
    let (spec, facts) = (ModelSpec::llama3_8b(GgmlType::Q4_K), facts(&[800, 800]));
    let model = model(&spec);
    let mut placement = model::Placement::split(Split([7, 9, 0, 0, 0, 0, 0, 0]), 32);
    placement.set(30, Place::Host);
    let plan = plan_placed(&model, None, &facts, &wish(15), &placement).unwrap();
    check(&plan);
    assert_eq!((layers(&plan), plan.gpu_layers, &plan.placement), (vec![6, 9], 15, &placement));
    // The stream goes to RAM and back, and from one card to the other.
    assert_eq!((placement.crossings(), plan.max_gpu_layers), (1, 33));
}

/// Of a long prompt each device computes another micro-batch, of a short one they wait for each other.
#[test]
fn devices_share_a_long_prompt() {
    let mut spec = ModelSpec::llama3_8b(GgmlType::Q4_K);
    let prompt = |spec: &ModelSpec, vram: &[u64], rates: &[f64], wishes: &Wishes| {
        let mut facts = facts(vram);
        facts.int8_rate = Some(1e12);
        let gpus = facts.accelerators.iter_mut().zip(rates);
        gpus.for_each(|(gpu, rate)| gpu.int8_rate = Some(*rate));
        let plan = plan(&model(spec), &facts, wishes).unwrap();
        let speed = plan.forecast.unwrap().prompt.unwrap();
        (layers(&plan), 0.6 / speed.low, 0.95 / speed.high)
    };
    // With one device only the attention to half of the context makes the difference.
    let (_, slow, fast) = prompt(&spec, &[800], &[20e12], &Wishes::default());
    let attention = slow - fast;
    assert!(attention > 0.0);
    let both = |rates: &[f64]| prompt(&spec, &[400, 400], rates, &Wishes::default());
    let (split, one_by_one, at_once) = both(&[20e12, 20e12]);
    assert!(split.iter().all(|layers| *layers > 10), "{split:?}");
    assert!((one_by_one / slow - 1.0).abs() < 1e-6, "{one_by_one} {slow}");
    let most = f64::from(*split.iter().max().unwrap()) / 33.0;
    assert!((at_once / fast - most).abs() < 0.05, "{at_once} {fast} {most}");
    // The slower one keeps the others waiting.
    let (_, _, uneven) = both(&[20e12, 2e12]);
    assert!((uneven / (fast * 10.0 * f64::from(split[1]) / 33.0) - 1.0).abs() < 0.05, "{uneven} {fast}");
    // So does the CPU, which has half of the layers here and a twentieth of the rate.
    let (halves, _, shared) = prompt(&spec, &[800], &[20e12], &wish(16));
    assert!(halves == [16] && (shared / (fast * 20.0 * 16.0 / 32.0) - 1.0).abs() < 0.05, "{shared} {fast}");
    // Where experts are apart, both wait within each layer.
    spec = ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K);
    let experts = Wishes { cpu_moe: Some(48), ..Wishes::default() };
    let (_, _, apart) = prompt(&spec, &[2000], &[1e12], &experts);
    let (_, _, whole) = prompt(&spec, &[2000], &[1e12], &Wishes::default());
    assert!((apart / whole - 1.0).abs() < 0.01, "{apart} {whole}");
}

#[test]
fn cards_are_as_fast_as_they_are() {
    let slow = |plan: &Plan| plan.forecast.unwrap().generation.high;
    let both = plan_8b(&[400, 400], &Wishes::default());
    let mut facts = facts(&[400, 400]);
    facts.accelerators[1].bandwidth = Some(100e9);
    let model = model(&ModelSpec::llama3_8b(GgmlType::Q4_K));
    let mixed = plan(&model, &facts, &Wishes::default()).unwrap();
    assert_eq!(layers(&mixed), layers(&both));
    let read = |number: usize| both.shares[number].parts.weights as f64;
    let expected = (read(0) / 400e9 + read(1) / 400e9) / (read(0) / 400e9 + read(1) / 100e9);
    let found = slow(&mixed) / slow(&both);
    assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
    // From one to the other takes its time.
    let one = plan_8b(&[800], &Wishes::default());
    let crossing = 0.95 / slow(&both) - 0.95 / slow(&one);
    assert!((crossing - 40e-6).abs() < 1e-9, "{crossing}");
    facts.accelerators[1].bandwidth = None;
    assert_eq!(plan(&model, &facts, &Wishes::default()).unwrap().forecast, None, "not known of all");
}
