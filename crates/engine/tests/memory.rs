//! What is planned is what is allocated: for settings drawn at random, every byte of our own buffers on both devices.

mod common;

use common::{greedy, load, options, prompt};
use engine::LoadOptions;
use planner::{AcceleratorFacts, Facts, GpuLayers, Wishes, plan};
use quant::GgmlType;
use test_models::{Experts, ModelSpec};

const PLENTY: u64 = 1 << 30;

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) % u64::from(limit)) as u32
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }
}

fn spec(random: &mut Random) -> ModelSpec {
    let base = random.one_of(&[0, 1, 2, 3, 4, 5]);
    let base = match base {
        0 => ModelSpec::llama(),
        1 => ModelSpec::llama3(),
        2 => ModelSpec::qwen2(),
        3 => ModelSpec::qwen3(),
        4 => ModelSpec::mixtral(),
        _ => ModelSpec::qwen3moe(),
    };
    let used = 1 + random.below(3);
    let experts = base.experts.map(|experts| Experts { used, ..experts });
    ModelSpec {
        n_layer: 1 + random.below(4),
        // Heads of whole blocks, so that every type of cache is possible.
        head_dim: random.one_of(&[32, 64]),
        tied: random.below(2) == 0,
        experts,
        ty: random.one_of(&[GgmlType::F32, GgmlType::F16, GgmlType::Q8_0]),
        ..base
    }
}

#[test]
fn planned_bytes_are_allocated_bytes_for_random_settings() {
    let mut random = Random(20);
    let cache_types = [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_0];
    let (mut split, mut whole) = (0, 0);
    for round in 0..40 {
        let spec = spec(&mut random);
        let layers = random.below(spec.n_layer + 2);
        let options = LoadOptions {
            context: 8 + random.below(500),
            gpu_layers: layers.into(),
            cpu_moe: random.below(4),
            kv_type_k: random.one_of(&cache_types),
            kv_type_v: random.one_of(&cache_types),
            ubatch: 1 + random.below(64),
            logits_rows: 1 + random.below(4),
            ..self::options(1, 0)
        };
        let (engine, _) = load(&spec, options, Some(PLENTY)).unwrap();
        let accelerator = AcceleratorFacts { memory_free: PLENTY, ..AcceleratorFacts::default() };
        let facts = Facts {
            ram_available: PLENTY,
            accelerators: vec![accelerator],
            ram_bandwidth: None,
            disk_bandwidth: None,
            int8_rate: None,
        };
        let wishes = Wishes {
            gpu_layers: GpuLayers::Fixed(layers),
            cpu_moe: Some(options.cpu_moe),
            context: Some(options.context),
            kv_type_k: options.kv_type_k,
            kv_type_v: options.kv_type_v,
            ubatch: Some(options.ubatch),
            logits_rows: options.logits_rows,
        };
        let plan = plan(engine.model(), &facts, &wishes).unwrap();
        let about = format!("round {round}: {} {:?} with {options:?}", spec.arch, spec.ty);
        let check = |when: &str| {
            let used = engine.placement();
            assert_eq!((used.gpu_layers, used.cpu_moe), (plan.gpu_layers, plan.cpu_moe), "{about}, {when}");
            assert_eq!(used.host_used, plan.host.kv + plan.host.compute, "host, {about}, {when}");
            assert_eq!(used.accelerator_used(), plan.on_accelerators().total(), "accelerator, {about}, {when}");
        };
        check("loaded");
        greedy(&engine, &prompt(7), 1);
        check("used");
        split += u32::from(layers > 0 && layers <= spec.n_layer);
        whole += u32::from(layers == spec.n_layer + 1);
    }
    assert!(split >= 5 && whole >= 3, "{split} split, {whole} whole");
}

#[test]
fn other_settings_take_other_bytes() {
    // The comparison above can fail: every setting that counts changes the count.
    let base = options(256, 2);
    let spec = ModelSpec { n_layer: 3, head_dim: 32, ..ModelSpec::llama() };
    let used = |options: LoadOptions| {
        let placement = load(&spec, options, Some(PLENTY)).unwrap().0.placement();
        (placement.host_used, placement.accelerator_used())
    };
    let expected = used(base);
    for other in [
        LoadOptions { context: 257, ..base },
        LoadOptions { gpu_layers: 1.into(), ..base },
        LoadOptions { ubatch: 17, ..base },
        LoadOptions { kv_type_k: GgmlType::Q8_0, ..base },
        LoadOptions { kv_type_v: GgmlType::F32, ..base },
    ] {
        let found = used(other);
        assert!(found.0 != expected.0 && found.1 != expected.1, "{other:?}");
    }
    let more_rows = used(LoadOptions { logits_rows: 2, ..base });
    assert!(more_rows.0 != expected.0 && more_rows.1 == expected.1, "logits are where the output layer is");
}
