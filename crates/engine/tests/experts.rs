//! Routed experts on the host while the rest of their layers is on the accelerator: the same tokens at every split, moves in
//! a running answer, memory that ends, a device that is lost.

mod common;

use backend_cpu::TestDeviceControl;
use common::{greedy, load, load_with, options, prompt, request};
use engine::{Cancel, Engine, Event, LoadOptions, Placement, Recovery, RecoveryCause};
use test_models::ModelSpec;

const PLENTY: u64 = 1 << 30;
const TOKENS: u32 = 16;

/// Experts alone, with a shared one, beside a dense part, with biases, after a dense layer, in one layer of four.
fn families() -> Vec<ModelSpec> {
    let small = [ModelSpec::mixtral(), ModelSpec::qwen3moe()].map(|spec| ModelSpec { n_layer: 4, ..spec });
    let kinds = [ModelSpec::gemma4_experts(), ModelSpec::gpt_oss(), ModelSpec::deepseek2(), ModelSpec::nemotron_h()];
    small.into_iter().chain(kinds).collect()
}

fn placed(layers: u32, cpu_moe: u32) -> LoadOptions {
    LoadOptions { cpu_moe, ..options(128, layers) }
}

/// Bytes as planned; whether so many layers are there, and experts apart from as many as have any.
fn check(placement: Placement, engine: &Engine, (layers, cpu_moe): (u32, u32), arch: &str) {
    assert_eq!((placement.gpu_layers, placement.cpu_moe), (layers, cpu_moe), "{arch}");
    assert_eq!(placement.host_used, placement.host_planned, "host, {arch} with {layers}, {cpu_moe}");
    assert_eq!(placement.accelerator_used(), placement.accelerator_planned(), "{arch} with {layers}, {cpu_moe}");
    let blocks = engine.model().layers.len() as u32;
    let first = blocks - layers.min(blocks);
    let apart = (first..cpu_moe).filter(|index| engine.model().layers[*index as usize].experts().is_some());
    assert_eq!(placement.experts_apart, apart.count() as u32, "{arch} with {layers}, {cpu_moe}");
}

#[test]
fn any_split_gives_the_same_tokens() {
    for spec in families() {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
        for layers in [1, 2, 4, 5] {
            for cpu_moe in 0..=4 {
                let (engine, _) = load(&spec, placed(layers, cpu_moe), Some(PLENTY)).unwrap();
                check(engine.placement(), &engine, (layers, cpu_moe), &spec.arch);
                let ids = greedy(&engine, &prompt(40), TOKENS).0.ids;
                assert_eq!(ids, expected, "{} with {layers} layers, experts of {cpu_moe} on the host", spec.arch);
                assert!(engine.take_recoveries().unwrap().is_empty());
            }
        }
    }
}

#[test]
fn experts_and_layers_move_during_an_answer_and_the_tokens_stay_the_same() {
    for spec in families() {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(40), 28).0.ids;
        let (engine, _) = load(&spec, placed(5, 2), Some(PLENTY)).unwrap();
        let wishes = [(5, 4), (5, 0), (2, 3), (0, 4), (4, 4), (3, 1)];
        let mut moved = 0;
        let engine = &engine;
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel::<(u32, u32)>();
            let mover = scope.spawn(move || {
                for wish in receiver {
                    let placement = engine.place(wish.0, wish.1).unwrap();
                    assert_eq!((placement.gpu_layers, placement.cpu_moe), wish);
                }
            });
            let completion = engine.generate(request(&prompt(40), 28), &Cancel::new(), &mut |event| {
                if matches!(event, Event::Token { .. }) {
                    if moved % 4 == 0
                        && let Some(wish) = wishes.get(moved / 4)
                    {
                        sender.send(*wish).unwrap();
                        // The wish must be there before the next step looks for it.
                        std::thread::sleep(std::time::Duration::from_millis(30));
                    }
                    moved += 1;
                }
            });
            drop(sender);
            assert_eq!(completion.unwrap().ids, expected, "{}", spec.arch);
            mover.join().unwrap();
        });
        check(engine.placement(), engine, (3, 1), &spec.arch);
        // The number of layers alone leaves the experts as they are.
        check(engine.set_gpu_layers(5).unwrap(), engine, (5, 1), &spec.arch);
    }
}

/// Bytes on the accelerator with so many layers, experts of the first on the host.
fn bytes(engine: &Engine, layers: usize, cpu_moe: usize) -> u64 {
    let layout = engine.layout();
    let whole = model::Placement::new(layers, layout.block_count());
    layout.placed(&whole.with_cpu_moe(cpu_moe)).accelerator(0).total()
}

#[test]
fn video_memory_taken_in_the_middle_of_an_answer_costs_experts_first() {
    for spec in [ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() }, ModelSpec::gpt_oss(), ModelSpec::deepseek2()] {
        // The first of DeepSeek's layers has no experts: nothing of it can be left.
        let from = if spec.arch == "deepseek2" { 2 } else { 1 };
        for (limit, left) in [((5, 3), (5, 3)), ((5, 4), (5, 4)), ((2, 4), (2, 4))] {
            let (engine, control) = load(&spec, placed(5, from), Some(PLENTY)).unwrap();
            let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
            engine.forget().unwrap();
            let (control, mut recoveries) = (control.unwrap(), Vec::new());
            let limit = bytes(&engine, limit.0, limit.1);
            let mut tokens = 0;
            let completion = engine.generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| match event {
                Event::Token { .. } => {
                    tokens += 1;
                    if tokens == 5 {
                        control.set_limit(limit);
                    }
                }
                Event::Recovered(recovery) => recoveries.push(recovery),
                Event::Prompt { .. } => {}
            });
            assert_eq!(completion.unwrap().ids, expected, "{}", spec.arch);
            check(engine.placement(), &engine, left, &spec.arch);
            let cause = RecoveryCause::OutOfMemory;
            let first = 4 - left.0.min(4);
            let experts_moved = (from.max(first)..left.1).count() as u32;
            let told = Recovery {
                cause,
                accelerator: 0,
                layers_shifted: 0,
                layers_moved: 5 - left.0,
                experts_moved,
                gpu_layers: left.0,
            };
            assert_eq!(recoveries, [told], "{}", spec.arch);
            // When there is room again, both go back.
            control.set_limit(PLENTY);
            check(engine.place(5, 0).unwrap(), &engine, (5, 0), &spec.arch);
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected);
        }
    }
}

#[test]
fn a_device_too_small_at_load_or_later_takes_fewer_experts_and_says_so() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    let (engine, _) = load(&spec, options(128, 0), None).unwrap();
    let (expected, cause) = (greedy(&engine, &prompt(40), TOKENS).0.ids, RecoveryCause::OutOfMemory);
    let room = bytes(&engine, 5, 3);
    let (engine, _) = load(&spec, placed(5, 1), Some(room)).unwrap();
    check(engine.placement(), &engine, (5, 3), &spec.arch);
    let told = Recovery { cause, accelerator: 0, layers_shifted: 0, layers_moved: 0, experts_moved: 2, gpu_layers: 5 };
    assert_eq!(engine.take_recoveries().unwrap(), [told]);
    assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected);
    // Wished for, and no room: what fits comes.
    check(engine.place(5, 4).unwrap(), &engine, (5, 4), &spec.arch);
    check(engine.place(5, 0).unwrap(), &engine, (5, 3), &spec.arch);
    let told = Recovery { cause, accelerator: 0, layers_shifted: 0, layers_moved: 0, experts_moved: 3, gpu_layers: 5 };
    assert_eq!(engine.take_recoveries().unwrap(), [told]);
    assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected);
}

#[test]
fn every_single_failing_allocation_is_survived() {
    for spec in [ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() }, ModelSpec::gemma4_experts()] {
        let (engine, _) = load(&spec, options(64, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(20), 8).0.ids;
        let mut failures = 0;
        for allocation in 0..400 {
            let fail = |control: &TestDeviceControl| control.fail_allocation(allocation);
            let (engine, _) =
                load_with(&spec, LoadOptions { cpu_moe: 2, ..options(64, 5) }, Some(PLENTY), fail).unwrap();
            // Both ways, and back.
            let wishes = [(5, 0), (2, 4), (5, 1)];
            let found = wishes.map(|(layers, cpu_moe)| engine.place(layers, cpu_moe).unwrap());
            let recovered = engine.take_recoveries().unwrap();
            for placement in found {
                assert_eq!(placement.accelerator_used(), placement.accelerator_planned(), "{} {allocation}", spec.arch);
                assert_eq!(placement.host_used, placement.host_planned, "{} {allocation}", spec.arch);
            }
            assert_eq!(greedy(&engine, &prompt(20), 8).0.ids, expected, "{} {allocation}", spec.arch);
            if recovered.is_empty() {
                break;
            }
            failures += 1;
        }
        assert!((30..400).contains(&failures), "the failures were injected: {failures}");
    }
}

#[test]
fn a_device_lost_in_the_middle_of_an_answer_costs_no_token() {
    for spec in families() {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
        let (engine, control) = load(&spec, placed(4, 3), Some(PLENTY)).unwrap();
        let (control, mut tokens, mut told) = (control.unwrap(), 0, Vec::new());
        let completion = engine.generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| match event {
            Event::Token { .. } => {
                tokens += 1;
                if tokens == 7 {
                    control.lose();
                }
            }
            Event::Recovered(recovery) => told.push(recovery),
            Event::Prompt { .. } => {}
        });
        assert_eq!(completion.unwrap().ids, expected, "{}", spec.arch);
        let cause = RecoveryCause::DeviceLost;
        assert_eq!(
            told,
            [Recovery { cause, accelerator: 0, layers_shifted: 0, layers_moved: 4, experts_moved: 0, gpu_layers: 0 }],
            "{}",
            spec.arch
        );
        let placement = engine.placement();
        assert_eq!((placement.gpu_layers, placement.experts_apart), (0, 0));
        assert_eq!(placement.host_used, placement.host_planned);
    }
}

/// What of the experts does not fit into RAM comes from disk, chosen by a router that is on the accelerator.
#[test]
fn experts_on_the_host_may_be_larger_than_ram() {
    for spec in [ModelSpec { n_layer: 5, ..ModelSpec::qwen3moe() }, ModelSpec::gpt_oss()] {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
        let (layout, blocks) = (engine.layout(), engine.layout().block_count());
        let host = layout.placed(&model::Placement::new(99, blocks).with_cpu_moe(99)).host;
        let options = LoadOptions { cpu_moe: 99, ..options(128, 99) };
        for (percent, paged) in [(30, true), (70, true), (101, false)] {
            let host_ram = Some(host.kv + host.compute + host.weights * percent / 100);
            let (engine, _) = load(&spec, LoadOptions { host_ram, ..options }, Some(PLENTY)).unwrap();
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{} {percent} %", spec.arch);
            let told = engine.placement().paged;
            assert_eq!(told.is_some_and(|told| told.read > 0 && told.held <= told.budget), paged, "{told:?}");
        }
    }
}
