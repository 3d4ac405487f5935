//! Plans for shapes of real models, without their weights.

#![allow(clippy::unwrap_used)]

use backend::Need;
use planner::{AcceleratorFacts, Facts, Fits, GpuLayers, Plan, ReasonCode, Wishes, plan};
use quant::GgmlType;
use test_models::ModelSpec;

const GIB: u64 = 1 << 30;

fn model(spec: &ModelSpec) -> model::Model {
    let (header, file_len) = spec.header();
    model::describe(&gguf::Gguf::parse(&header, file_len).unwrap()).unwrap()
}

fn gpu(memory_free: u64) -> AcceleratorFacts {
    AcceleratorFacts {
        name: "GPU".into(),
        memory_free,
        overhead: 300 << 20,
        margin: 200 << 20,
        bandwidth: Some(400e9),
        upload_rate: None,
        int8_rate: None,
        scratch: |_| Some(0),
        footprint: |bytes| bytes,
    }
}

fn facts(ram: u64, vram: Option<u64>) -> Facts {
    Facts {
        ram_available: ram,
        accelerators: vram.into_iter().map(gpu).collect(),
        ram_bandwidth: Some(40e9),
        disk_bandwidth: Some(2e9),
        int8_rate: Some(1e12),
    }
}

fn plan_8b(ram: u64, vram: Option<u64>, wishes: Wishes) -> Plan {
    plan(&model(&ModelSpec::llama3_8b(GgmlType::Q4_K)), &facts(ram, vram), &wishes).unwrap()
}

fn plan_of(model: &model::Model, facts: &Facts, wishes: Wishes) -> Plan {
    plan(model, facts, &wishes).unwrap()
}

fn has(plan: &Plan, code: ReasonCode) -> bool {
    plan.reasons.iter().any(|reason| reason.code == code)
}

#[test]
fn without_a_gpu_everything_runs_in_ram() {
    let plan = plan_8b(32 * GIB, None, Wishes::default());
    assert_eq!((plan.fits, plan.gpu_layers, plan.layers), (Fits::Ram, 0, 33));
    assert_eq!(plan.accelerator_total(), 0);
    assert!(has(&plan, ReasonCode::NoAccelerator));
    // 8192 tokens x 32 layers x 8 heads x 128 values x 2 bytes, for K and V.
    assert_eq!(plan.host.kv, 2 * 8192 * 32 * 8 * 128 * 2);
}

#[test]
fn a_large_gpu_takes_all_layers_and_a_small_one_some() {
    let plan = plan_8b(32 * GIB, Some(24 * GIB), Wishes::default());
    assert_eq!((plan.fits, plan.gpu_layers), (Fits::Gpu, 33));
    assert!(has(&plan, ReasonCode::AllOnAccelerator));

    let plan = plan_8b(32 * GIB, Some(4 * GIB), Wishes::default());
    assert_eq!(plan.fits, Fits::Split);
    assert!((5..30).contains(&plan.gpu_layers), "{}", plan.gpu_layers);
    assert!(plan.accelerator_total() <= 4 * GIB - (200 << 20));
    // One more would not fit.
    let more = Wishes { gpu_layers: GpuLayers::Fixed(plan.gpu_layers + 1), ..Wishes::default() };
    let plan = plan_8b(32 * GIB, Some(4 * GIB), more);
    assert_eq!(plan.fits, Fits::No);
    assert!(has(&plan, ReasonCode::BeyondAccelerator));

    let plan = plan_8b(32 * GIB, Some(600 << 20), Wishes::default());
    assert_eq!((plan.fits, plan.gpu_layers), (Fits::Ram, 0));
    assert!(has(&plan, ReasonCode::AcceleratorTooSmall));
}

#[test]
fn weights_beyond_ram_come_from_disk_and_are_slow() {
    let fast = plan_8b(32 * GIB, None, Wishes::default()).forecast.unwrap();
    let plan = plan_8b(4 * GIB, None, Wishes::default());
    assert_eq!(plan.fits, Fits::Disk);
    assert!(has(&plan, ReasonCode::WeightsFromDisk));
    assert!(plan.forecast.unwrap().generation.high < fast.generation.high / 3.0);
    // What stays in RAM with its buffers fits there; the rest goes at the disk's speed.
    let residency = plan.residency.unwrap();
    assert!(residency.kept + residency.window + plan.host.kv + plan.host.compute <= plan.host_ram);
    assert!(residency.streamed < 3 * GIB, "{}", residency.streamed);
    let per_second = 2e9 / residency.streamed as f64;
    let speed = plan.forecast.unwrap().generation;
    assert!(speed.high <= per_second && speed.low > per_second / 3.0, "{speed:?} {per_second}");
    assert_eq!(plan_8b(32 * GIB, None, Wishes::default()).residency, None);
}

#[test]
fn a_context_that_does_not_fit_is_reduced_or_refused_with_numbers() {
    let automatic = plan_8b(GIB, None, Wishes::default());
    assert!(automatic.context < 8192 && has(&automatic, ReasonCode::ContextReduced));
    let wanted = Wishes { context: Some(131_072), ..Wishes::default() };
    let plan = plan_8b(GIB, None, wanted);
    assert_eq!((plan.fits, plan.context), (Fits::No, 131_072));
    let reason = plan.reasons.iter().find(|reason| reason.code == ReasonCode::RamShort).unwrap();
    assert!(reason.needed > reason.available);
    // q8_0 takes 34 bytes for 32 values instead of 64.
    let smaller = Wishes { kv_type_k: GgmlType::Q8_0, kv_type_v: GgmlType::Q8_0, ..wanted };
    assert_eq!(plan_8b(GIB, None, smaller).host.kv * 64, plan.host.kv * 34);
}

#[test]
fn a_mixture_of_experts_is_forecast_by_the_experts_it_uses() {
    let dense = plan_8b(64 * GIB, None, Wishes::default()).forecast.unwrap();
    let experts = model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K));
    let experts = plan(&experts, &facts(64 * GIB, None), &Wishes::default()).unwrap();
    assert!(experts.host.weights > 15 * GIB);
    assert!(experts.forecast.unwrap().generation.high > dense.generation.high * 1.5);
}

/// Qwen 3 30B A3B beside a card of 8 GB: everything but the routed experts of most layers fits there.
#[test]
fn experts_stay_in_ram_where_that_is_faster_than_fewer_layers() {
    let model = model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K));
    let facts = facts(32 * GIB, Some(8 * GIB));
    let with =
        |gpu_layers, cpu_moe| plan(&model, &facts, &Wishes { gpu_layers, cpu_moe, ..Wishes::default() }).unwrap();
    let (auto, fixed) = (GpuLayers::Auto, GpuLayers::Fixed);
    let (chosen, whole) = (with(auto, None), with(auto, Some(0)));
    assert_eq!((chosen.gpu_layers, chosen.fits, chosen.expert_layers), (49, Fits::Split, 48));
    assert!((10..48).contains(&chosen.cpu_moe) && chosen.experts_apart == chosen.cpu_moe, "{}", chosen.cpu_moe);
    assert!(has(&chosen, ReasonCode::ExpertsInRam) && !has(&chosen, ReasonCode::AllOnAccelerator));
    assert!(chosen.accelerator_total() <= 8 * GIB - (200 << 20));
    assert!((5..40).contains(&whole.gpu_layers) && whole.experts_apart == 0, "{}", whole.gpu_layers);
    let speed = |plan: &Plan| plan.forecast.unwrap().generation;
    assert!(speed(&chosen).low > speed(&whole).low && speed(&chosen).high > speed(&whole).high);
    // One layer's experts more have no room.
    let more = with(fixed(49), Some(chosen.cpu_moe - 1));
    assert!(more.fits == Fits::No && has(&more, ReasonCode::BeyondAccelerator));
    assert_eq!(with(fixed(49), Some(chosen.cpu_moe)).layout, chosen.layout);
    // A wish for layers is followed with as few experts in RAM as it takes.
    assert_eq!(with(fixed(49), None).cpu_moe, chosen.cpu_moe);
    let half = with(fixed(25), None);
    assert!(half.fits == Fits::Split && half.experts_apart < chosen.experts_apart, "{}", half.experts_apart);
    assert_eq!(with(fixed(whole.gpu_layers), None).experts_apart, 0);
    assert_eq!((chosen.max_gpu_layers, whole.max_gpu_layers), (49, whole.gpu_layers));
    // Nothing of it where there is room, no GPU, or no mixture.
    for vram in [Some(40 * GIB), None] {
        let plan = plan(&model, &self::facts(64 * GIB, vram), &Wishes::default()).unwrap();
        assert_eq!((plan.cpu_moe, plan.experts_apart, has(&plan, ReasonCode::ExpertsInRam)), (0, 0, false));
    }
    let dense = plan_8b(32 * GIB, Some(4 * GIB), Wishes::default());
    assert_eq!((dense.cpu_moe, dense.expert_layers, dense.experts_apart), (0, 0, 0));
    // All but the experts does not fit either: as many layers as do.
    let small = plan(&model, &self::facts(32 * GIB, Some(3 * GIB / 2)), &Wishes::default()).unwrap();
    assert!(small.gpu_layers > 0 && small.gpu_layers < 49 && small.experts_apart > 0, "{small:?}");
}

/// Crossing to RAM in every layer costs more than it brings where RAM is nearly as fast as video memory.
#[test]
fn whole_layers_are_taken_where_they_are_faster() {
    let model = model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K));
    let mut facts = facts(32 * GIB, Some(8 * GIB));
    facts.ram_bandwidth = Some(390e9);
    let plan = plan(&model, &facts, &Wishes::default()).unwrap();
    assert_eq!(plan.experts_apart, 0, "{} layers", plan.gpu_layers);
    assert!(plan.max_gpu_layers > plan.recommended_gpu_layers);
}

/// Experts of a type that the GPU cannot multiply keep their layers from it only whole.
#[test]
fn experts_that_the_gpu_cannot_compute_stay_behind() {
    let model = model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K));
    let mut facts = facts(32 * GIB, Some(40 * GIB));
    facts.accelerators[0].scratch = |need| (!matches!(need, Need::ExpertMatMul { .. })).then_some(0);
    let chosen = plan(&model, &facts, &Wishes::default()).unwrap();
    assert_eq!((chosen.gpu_layers, chosen.cpu_moe, chosen.fits), (49, 48, Fits::Split));
    let whole = plan(&model, &facts, &Wishes { cpu_moe: Some(0), ..Wishes::default() }).unwrap();
    assert!(whole.gpu_layers == 0 && has(&whole, ReasonCode::AcceleratorLacks));
}

#[test]
fn speeds_follow_the_bandwidth() {
    let at_40 = plan_8b(32 * GIB, None, Wishes::default()).forecast.unwrap().generation;
    let spec = model(&ModelSpec::llama3_8b(GgmlType::Q4_K));
    let twice = Facts { ram_bandwidth: Some(80e9), ..facts(32 * GIB, None) };
    let at_80 = plan(&spec, &twice, &Wishes::default()).unwrap().forecast.unwrap().generation;
    assert!((at_80.high / at_40.high - 2.0).abs() < 1e-9);
    assert!(at_40.low < at_40.high);
    // 4.5 bits a weight at 40 GB/s: between 5 and 10 tokens a second.
    assert!((4.0..11.0).contains(&at_40.high), "{at_40:?}");
    let unknown = Facts { ram_bandwidth: None, ..facts(32 * GIB, None) };
    assert_eq!(plan(&spec, &unknown, &Wishes::default()).unwrap().forecast, None);
}

#[test]
fn prompts_are_read_as_fast_as_the_arithmetic_goes() {
    let prompt = |plan: Plan| plan.forecast.unwrap().prompt;
    // 7 G multiply-adds a token at 1 T/s: somewhat below 143 tokens a second, less with a long context.
    let short = prompt(plan_8b(64 * GIB, None, Wishes { context: Some(512), ..Wishes::default() })).unwrap();
    assert!((110.0..143.0).contains(&short.high) && short.low > short.high / 3.0, "{short:?}");
    let long = prompt(plan_8b(64 * GIB, None, Wishes { context: Some(32768), ..Wishes::default() })).unwrap();
    assert!(long.high == short.high && long.low < short.low / 3.0, "{long:?}");
    // Weights are read again for each part of the prompt: at best during its computation, at worst before it.
    let plan = plan_8b(4 * GIB, None, Wishes { context: Some(512), ..Wishes::default() });
    let (read, from_disk) = (plan.residency.as_ref().unwrap().streamed as f64 / 2e9, prompt(plan).unwrap());
    let worse = 1.0 / from_disk.low - 1.0 / short.low;
    assert!((worse * 0.6 / (read / 512.0) - 1.0).abs() < 1e-6 && from_disk.high == short.high, "{from_disk:?}");
    let slow = Facts { disk_bandwidth: Some(1e7), ..facts(4 * GIB, None) };
    let model = model(&ModelSpec::llama3_8b(GgmlType::Q4_K));
    let waiting = plan_of(&model, &slow, Wishes { context: Some(512), ..Wishes::default() });
    let read = waiting.residency.as_ref().unwrap().streamed as f64 / 1e7;
    assert!((prompt(waiting).unwrap().high * read / 512.0 / 0.95 - 1.0).abs() < 1e-6);
    // How fast an accelerator computes is not known.
    assert_eq!(prompt(plan_8b(32 * GIB, Some(4 * GIB), Wishes::default())), None);
}

#[test]
fn scratch_memory_counts_and_what_a_gpu_lacks_stays_on_the_cpu_with_a_reason() {
    let model = model(&ModelSpec::llama3_8b(GgmlType::Q4_K));
    let with = |scratch: fn(&Need) -> Option<u64>, wishes: Wishes| {
        let mut facts = facts(32 * GIB, Some(24 * GIB));
        facts.accelerators[0].scratch = scratch;
        plan(&model, &facts, &wishes).unwrap()
    };
    let all = with(|_| Some(50 << 20), Wishes::default());
    // Products and attention have a piece each.
    assert_eq!(all.accelerator_other(), (300 << 20) + (100 << 20));
    assert!(all.fits == Fits::Gpu && !has(&all, ReasonCode::AcceleratorLacks));

    // Buffers may take more than they hold: of every layer's tensors, its two caches, the slots.
    let mut wide = facts(32 * GIB, Some(24 * GIB));
    wide.accelerators[0].footprint = |bytes| bytes + u64::from(bytes > 0);
    let fixed = |layers| Wishes { gpu_layers: GpuLayers::Fixed(layers), ..Wishes::default() };
    let padding =
        |layers: u32| plan(&model, &wide, &fixed(layers)).unwrap().accelerator_other().saturating_sub(300 << 20);
    let tensors = model.layers[31].tensors().len() as u64;
    assert_eq!(padding(0), 0);
    assert_eq!(padding(2) - padding(1), tensors + 2);
    assert_eq!(padding(1), all.layout.slots.len() as u64 + tensors + 2);
    assert_eq!(padding(33) - padding(32), (model.output.tensors().len() + all.layout.output_slots.len()) as u64);

    let huge = with(|_| Some(12 * GIB), Wishes::default());
    assert_eq!((huge.fits, huge.gpu_layers), (Fits::Ram, 0));
    assert!(has(&huge, ReasonCode::AcceleratorTooSmall));

    let none = |need: &Need| (!matches!(need, Need::MatMul { .. })).then_some(0);
    for wishes in [Wishes::default(), Wishes { gpu_layers: GpuLayers::Fixed(20), ..Wishes::default() }] {
        let lacking = with(none, wishes);
        assert_eq!((lacking.fits, lacking.gpu_layers, lacking.max_gpu_layers), (Fits::Ram, 0, 0));
        assert!(has(&lacking, ReasonCode::AcceleratorLacks));
        assert!(!has(&lacking, ReasonCode::BeyondAccelerator) && !has(&lacking, ReasonCode::AcceleratorTooSmall));
        assert_eq!(lacking.accelerator_total(), 0);
    }
    // All but the output layer, which computes one row at once.
    let most = with(|need| (!matches!(need, Need::MatMul { n: 1, .. })).then_some(0), Wishes::default());
    assert_eq!((most.fits, most.gpu_layers), (Fits::Split, 32));
    let reason = most.reasons.iter().find(|reason| reason.code == ReasonCode::AcceleratorLacks).unwrap();
    assert_eq!(reason.text, "The GPU cannot compute weights of type Q4_K: 1 or more layers stay on the CPU.");
}

#[test]
fn prompts_of_models_from_disk_are_computed_in_larger_pieces_where_the_disk_is_slower() {
    let model = model(&ModelSpec::llama3_8b(GgmlType::Q8_0));
    let with = |ram: u64, disk: f64, wishes: Wishes| {
        let facts = Facts { disk_bandwidth: Some(disk), ..facts(ram, None) };
        plan(&model, &facts, &wishes).unwrap()
    };
    let wishes = Wishes { context: Some(8192), ..Wishes::default() };
    let ubatch = |plan: &Plan| plan.layout.params.ubatch;
    // 7 G multiply-adds a token at 1 T/s: 3.6 s for 512 tokens, in which 4 GB or so can be read at 1.2 GB/s or not.
    let (quick, slow) = (with(5 * GIB, 20e9, wishes), with(5 * GIB, 0.6e9, wishes));
    assert_eq!((quick.fits, ubatch(&quick), slow.fits), (Fits::Disk, 512, Fits::Disk));
    assert!(ubatch(&slow) > 512, "{}", ubatch(&slow));
    // Buffers grow with it, and are what the engine allocates; more weights are read for them.
    assert_eq!(slow.host, slow.layout.totals(0).host);
    assert!(slow.host.compute > quick.host.compute && slow.host.compute <= slow.host_ram / 16);
    let streamed = |plan: &Plan| plan.residency.as_ref().unwrap().streamed;
    assert!(streamed(&slow) > streamed(&quick));
    let fixed = with(5 * GIB, 0.6e9, Wishes { ubatch: Some(512), ..wishes });
    let prompt = |plan: &Plan| plan.forecast.unwrap().prompt.unwrap();
    assert_eq!(ubatch(&fixed), 512);
    assert!(prompt(&slow).high > 1.3 * prompt(&fixed).high, "{:?} {:?}", prompt(&slow), prompt(&fixed));
    // Not beyond the context, nor without a reason, nor where the disk's rate is not known.
    assert_eq!(ubatch(&with(5 * GIB, 0.6e9, Wishes { context: Some(600), ..wishes })), 600);
    assert_eq!(ubatch(&with(32 * GIB, 0.6e9, wishes)), 512);
    assert_eq!(ubatch(&with(5 * GIB, f64::NAN, wishes)), 512);
}

fn streamed_8b(vram: u64, gpu_layers: u32, facts_of: impl Fn(&mut Facts)) -> Plan {
    let mut facts = facts(32 * GIB, Some(vram));
    let accelerator = &mut facts.accelerators[0];
    (accelerator.upload_rate, accelerator.int8_rate) = (Some(12e9), Some(20e12));
    facts_of(&mut facts);
    let wishes = Wishes { gpu_layers: GpuLayers::Fixed(gpu_layers), ..Wishes::default() };
    plan(&model(&ModelSpec::llama3_8b(GgmlType::Q4_K)), &facts, &wishes).unwrap()
}

/// Long prompts go through the GPU also in the layers in RAM, if two of these find room beside what is there.
#[test]
fn prompts_are_streamed_where_there_is_room_for_it() {
    let with = streamed_8b(6 * GIB, 10, |_| {});
    let streamed = with.streamed.as_ref().unwrap();
    // 22 layers: the copies of 23 take the time of the arithmetic of 49.1 tokens.
    assert_eq!(streamed.from, 50);
    let (layer, slot) = (&with.layout.layers[0], streamed.bytes / 2);
    let rounding = 12 * 256;
    assert!((layer.device_weights + layer.cache()..layer.device_weights + layer.cache() + rounding).contains(&slot));
    assert!(has(&with, ReasonCode::PromptsStreamed));
    // It is counted, and the layers are those that were wished.
    let without = streamed_8b(6 * GIB, 10, |facts| facts.accelerators[0].upload_rate = None);
    assert_eq!((without.streamed.as_ref(), has(&without, ReasonCode::PromptsStreamed)), (None, false));
    assert_eq!(with.accelerator_total(), without.accelerator_total() + streamed.bytes);
    assert_eq!((with.gpu_layers, with.on_accelerators()), (without.gpu_layers, without.on_accelerators()));
    // To the byte.
    let enough = with.accelerator_total() + (200 << 20);
    assert_eq!(streamed_8b(enough, 10, |_| {}).streamed.as_ref(), Some(streamed));
    assert_eq!(streamed_8b(enough - 1, 10, |_| {}).streamed, None);
    // Prompts are forecast with it: in 22 layers of 32 copies are what takes time, not the CPU's arithmetic.
    let prompt = |plan: &Plan| plan.forecast.unwrap().prompt.unwrap().high;
    assert!(prompt(&with) > 5.0 * prompt(&without), "{} {}", prompt(&with), prompt(&without));
}

#[test]
fn prompts_are_not_streamed_where_that_would_be_slower() {
    let never: [fn(&mut Facts); 5] = [
        |facts| facts.accelerators[0].upload_rate = Some(1e9),
        |facts| facts.accelerators[0].int8_rate = Some(0.5e12),
        |facts| facts.accelerators[0].int8_rate = None,
        |facts| facts.int8_rate = None,
        // What is read from disk is not streamed.
        |facts| facts.ram_available = 3 * GIB,
    ];
    for facts_of in never {
        let plan = streamed_8b(6 * GIB, 10, facts_of);
        assert_eq!(plan.streamed, None);
    }
    assert_eq!(streamed_8b(6 * GIB, 0, |_| {}).streamed, None, "the GPU is not wanted");
    assert_eq!(streamed_8b(24 * GIB, 33, |_| {}).streamed, None, "nothing is in RAM");
}

/// Where nobody says how many layers, two or three make room for streaming if a turn gets shorter by that.
#[test]
fn layers_make_room_for_streaming_where_that_is_faster() {
    let of = |vram: u64, change: fn(&mut AcceleratorFacts), wishes: Wishes| {
        let mut facts = facts(32 * GIB, Some(vram));
        let gpu = &mut facts.accelerators[0];
        (gpu.upload_rate, gpu.int8_rate) = (Some(12e9), Some(20e12));
        change(gpu);
        plan_of(&model(&ModelSpec::llama3_8b(GgmlType::Q4_K)), &facts, wishes)
    };
    let full = of(3 * GIB, |gpu| gpu.upload_rate = None, Wishes::default());
    let lean = of(3 * GIB, |_| {}, Wishes::default());
    assert_eq!((full.streamed.as_ref(), full.gpu_layers), (None, full.max_gpu_layers));
    let less = full.gpu_layers - lean.gpu_layers;
    assert!(lean.streamed.is_some() && (1..=3).contains(&less), "{less}");
    assert_eq!((lean.recommended_gpu_layers, lean.max_gpu_layers), (lean.gpu_layers, full.max_gpu_layers));
    assert!(lean.accelerator_total() <= 3 * GIB - (200 << 20));
    // A turn of 1000 tokens read and 300 written.
    let forecast = |plan: &Plan| plan.forecast.unwrap();
    let turn = |plan: &Plan| 1000.0 / forecast(plan).prompt.unwrap().high + 300.0 / forecast(plan).generation.high;
    assert!(turn(&lean) < turn(&full), "{} {}", turn(&lean), turn(&full));
    // With few layers in RAM prompts gain less than the answer loses: by hand, 10 x 0.2 s of 2 x 300 x 3 ms.
    let most = of(4 * GIB, |_| {}, Wishes::default());
    assert_eq!((most.streamed.as_ref(), most.gpu_layers), (None, most.max_gpu_layers));
    // Copies that take long: the layers stay. So they do where somebody says how many.
    let slow = of(3 * GIB, |gpu| gpu.upload_rate = Some(2e9), Wishes::default());
    assert_eq!((slow.streamed.as_ref(), slow.gpu_layers), (None, full.gpu_layers));
    let wished = Wishes { gpu_layers: GpuLayers::Fixed(full.gpu_layers), ..Wishes::default() };
    let wished = of(3 * GIB, |_| {}, wished);
    assert_eq!((wished.streamed.as_ref(), wished.gpu_layers), (None, full.gpu_layers));
    assert_eq!(of(23 * GIB, |_| {}, Wishes::default()).gpu_layers, 33, "nothing is in RAM");
}

/// Of a mixture, the experts of some layers more.
#[test]
fn experts_make_room_for_streaming_where_that_is_faster() {
    let of = |upload_rate| {
        let mut facts = facts(32 * GIB, Some(10 * GIB));
        let gpu = &mut facts.accelerators[0];
        (gpu.upload_rate, gpu.int8_rate) = (upload_rate, Some(20e12));
        // A processor that is slow beside its memory.
        facts.int8_rate = Some(0.2e12);
        plan_of(&model(&ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K)), &facts, Wishes::default())
    };
    let (full, lean) = (of(None), of(Some(25e9)));
    assert!(full.experts_apart > 0 && full.streamed.is_none(), "{}", full.experts_apart);
    assert!(lean.streamed.is_some() && lean.gpu_layers == full.gpu_layers, "{:?}", lean.streamed.map(|all| all.from));
    assert!((1..=6).contains(&(lean.cpu_moe - full.cpu_moe)), "{} {}", lean.cpu_moe, full.cpu_moe);
}
