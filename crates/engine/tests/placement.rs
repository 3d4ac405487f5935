//! Placement is data: any split gives the same tokens, layers move in a running answer, failures end with fewer layers.

mod common;

use backend_cpu::TestDeviceControl;
use common::{greedy, load, load_with, options, prompt, request};
use engine::{Cancel, Event, Recovery, RecoveryCause};
use quant::GgmlType;
use test_models::ModelSpec;

const PLENTY: u64 = 1 << 30;
const TOKENS: u32 = 24;

fn families() -> Vec<ModelSpec> {
    let small = [ModelSpec::llama3(), ModelSpec::mixtral(), ModelSpec::qwen2(), ModelSpec::qwen3moe()];
    let mut all: Vec<ModelSpec> = small.into_iter().map(|spec| ModelSpec { n_layer: 4, ..spec }).collect();
    all.push(ModelSpec { n_layer: 4, ..ModelSpec::quantized(GgmlType::Q4_K) });
    all.extend(ModelSpec::every_kind());
    all
}

fn recoveries(events: &[Event]) -> Vec<Recovery> {
    events.iter().filter_map(|event| if let Event::Recovered(r) = event { Some(*r) } else { None }).collect()
}

#[test]
fn any_split_gives_the_same_tokens() {
    for spec in families() {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
        for layers in 0..=5 {
            let (engine, _) = load(&spec, options(128, layers), Some(PLENTY)).unwrap();
            assert_eq!(engine.placement().gpu_layers, layers);
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{} with {layers} layers", spec.arch);
        }
    }
}

#[test]
fn layers_move_during_an_answer_and_the_tokens_stay_the_same() {
    for spec in families() {
        let (engine, _) = load(&spec, options(128, 2), Some(PLENTY)).unwrap();
        let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;

        let (engine, _) = load(&spec, options(128, 2), Some(PLENTY)).unwrap();
        let engine = &engine;
        let wishes = [5, 0, 3, 1, 4];
        let (sender, receiver) = std::sync::mpsc::channel::<u32>();
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            let mover = scope.spawn(move || {
                receiver
                    .iter()
                    .map(|layers| (layers, engine.set_gpu_layers(layers).unwrap().gpu_layers))
                    .collect::<Vec<_>>()
            });
            let mut tokens = 0;
            let completion = engine
                .generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| {
                    if matches!(event, Event::Token { .. }) {
                        if tokens % 4 == 0 && tokens / 4 < wishes.len() {
                            sender.send(wishes[tokens / 4]).unwrap();
                            // The wish must be there before the next step looks for it.
                            std::thread::sleep(std::time::Duration::from_millis(30));
                        }
                        tokens += 1;
                        seen.push(engine.placement().gpu_layers);
                    }
                })
                .unwrap();
            drop(sender);
            assert_eq!(completion.ids, expected, "{}", spec.arch);
            for (wished, found) in mover.join().unwrap() {
                assert_eq!(wished, found);
            }
        });
        seen.dedup();
        assert!(seen.len() > wishes.len() / 2, "layers moved while tokens came: {seen:?}");
    }
}

#[test]
fn planned_bytes_are_the_bytes_used_wherever_layers_are() {
    for spec in families() {
        let (engine, _) = load(&spec, options(96, 0), Some(PLENTY)).unwrap();
        for layers in [0, 3, 5, 1, 4, 0, 5] {
            engine.set_gpu_layers(layers).unwrap();
            let placement = engine.placement();
            assert_eq!(placement.gpu_layers, layers);
            assert_eq!(placement.host_used, placement.host_planned, "host, {} with {layers}", spec.arch);
            assert_eq!(placement.accelerator_used(), placement.accelerator_planned(), "{} with {layers}", spec.arch);
        }
    }
}

#[test]
fn a_device_too_small_at_load_takes_fewer_layers_and_says_so() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama() };
    let (engine, _) = load(&spec, options(128, 0), None).unwrap();
    let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
    let room_for = |layers: usize| engine.layout().totals(layers).accelerator(0).total();
    for fitting in 0..5u32 {
        let (engine, _) = load(&spec, options(128, 5), Some(room_for(fitting as usize + 1) - 1)).unwrap();
        let placement = engine.placement();
        assert_eq!(placement.gpu_layers, fitting);
        assert_eq!(placement.accelerator_used(), placement.accelerator_planned());
        let told = engine.take_recoveries().unwrap();
        let cause = RecoveryCause::OutOfMemory;
        assert_eq!(
            told,
            [Recovery {
                cause,
                accelerator: 0,
                layers_shifted: 0,
                layers_moved: 5 - fitting,
                experts_moved: 0,
                gpu_layers: fitting
            }]
        );
        assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected);
    }
}

#[test]
fn every_single_failing_allocation_at_load_is_survived() {
    // With states, and with copies of caches besides the layers' own.
    for spec in [ModelSpec { n_layer: 3, ..ModelSpec::llama() }, ModelSpec::qwen35(), ModelSpec::gemma4()] {
        let all = spec.n_layer + 1;
        let (engine, _) = load(&spec, options(64, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(20), 8).0.ids;
        let mut failures = 0;
        for allocation in 0..400 {
            let fail = |control: &TestDeviceControl| control.fail_allocation(allocation);
            let (engine, _) = load_with(&spec, options(64, all), Some(PLENTY), fail).unwrap();
            assert_eq!(greedy(&engine, &prompt(20), 8).0.ids, expected, "{} {allocation}", spec.arch);
            let placement = engine.placement();
            assert_eq!(placement.accelerator_used(), placement.accelerator_planned(), "{} {allocation}", spec.arch);
            if placement.gpu_layers == all {
                break;
            }
            failures += 1;
        }
        assert!((10..400).contains(&failures), "the failures were injected: {failures}");
    }
}

#[test]
fn video_memory_taken_in_the_middle_of_an_answer_costs_layers_and_no_token() {
    for spec in families() {
        let (engine, control) = load(&spec, options(128, 5), Some(PLENTY)).unwrap();
        let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
        let control = control.unwrap();

        let (engine2, control2) = load(&spec, options(128, 5), Some(PLENTY)).unwrap();
        drop((engine, control));
        let control2 = control2.unwrap();
        let limit = engine2.layout().totals(2).accelerator(0).total();
        let mut events = Vec::new();
        let mut tokens = 0;
        let completion = engine2
            .generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| {
                if matches!(event, Event::Token { .. }) {
                    tokens += 1;
                    if tokens == 5 {
                        control2.set_limit(limit);
                    }
                }
                events.push(event);
            })
            .unwrap();
        assert_eq!(completion.ids, expected, "{}", spec.arch);
        let cause = RecoveryCause::OutOfMemory;
        assert_eq!(
            recoveries(&events),
            [Recovery { cause, accelerator: 0, layers_shifted: 0, layers_moved: 3, experts_moved: 0, gpu_layers: 2 }],
            "{}",
            spec.arch
        );
        // When there is room again, the layers go back.
        control2.set_limit(PLENTY);
        assert_eq!(engine2.set_gpu_layers(5).unwrap().gpu_layers, 5);
    }
}

#[test]
fn a_device_lost_in_the_middle_of_an_answer_costs_no_token() {
    for spec in families() {
        let (engine, _) = load(&spec, options(128, 3), Some(PLENTY)).unwrap();
        let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;

        let (engine, control) = load(&spec, options(128, 3), Some(PLENTY)).unwrap();
        let control = control.unwrap();
        let mut events = Vec::new();
        let mut tokens = 0;
        let completion = engine
            .generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| {
                if matches!(event, Event::Token { .. }) {
                    tokens += 1;
                    if tokens == 7 {
                        control.lose();
                    }
                }
                events.push(event);
            })
            .unwrap();
        assert_eq!(completion.ids, expected, "{}", spec.arch);
        let cause = RecoveryCause::DeviceLost;
        assert_eq!(
            recoveries(&events),
            [Recovery { cause, accelerator: 0, layers_shifted: 0, layers_moved: 3, experts_moved: 0, gpu_layers: 0 }],
            "{}",
            spec.arch
        );
        assert_eq!(engine.placement().gpu_layers, 0);
        assert_eq!(engine.placement().host_used, engine.placement().host_planned);
    }
}

#[test]
fn a_wish_beyond_the_room_is_fulfilled_as_far_as_it_goes() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3() };
    let (engine, _) = load(&spec, options(64, 0), None).unwrap();
    let room = engine.layout().totals(3).accelerator(0).total();
    let (engine, _) = load(&spec, options(64, 1), Some(room)).unwrap();
    assert_eq!(engine.set_gpu_layers(5).unwrap().gpu_layers, 3);
    let told = engine.take_recoveries().unwrap();
    assert_eq!(
        told,
        [Recovery {
            cause: RecoveryCause::OutOfMemory,
            accelerator: 0,
            layers_shifted: 0,
            layers_moved: 2,
            experts_moved: 0,
            gpu_layers: 3
        }]
    );
}

/// Other programs press for memory before anything fails: layers leave between two steps, and no token is lost.
#[test]
fn layers_leave_when_other_programs_need_the_memory() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let (engine, control) = load(&spec, options(128, 5), Some(PLENTY)).unwrap();
    let control = control.unwrap();
    let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
    let used = engine.placement().accelerator_used();
    let mut told = Vec::new();
    let mut made = 0;
    let completion = engine.generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| match event {
        Event::Token { .. } => {
            made += 1;
            if made == 5 {
                control.set_others(PLENTY - used / 2);
                // It is asked for now and then only.
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
        }
        Event::Recovered(recovery) => told.push((made, recovery)),
        Event::Prompt { .. } => {}
    });
    assert_eq!(completion.unwrap().ids, expected);
    let [(at, recovery)] = told[..] else { panic!("{told:?}") };
    assert_eq!((at, recovery.cause), (5, RecoveryCause::OutOfMemory), "in the step after");
    assert!(recovery.gpu_layers > 0 && recovery.gpu_layers < 5, "as many as it takes: {recovery:?}");
    assert!(engine.placement().accelerator_used() <= used / 2);
}

#[test]
fn another_device_takes_the_place_of_a_lost_one() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let (engine, control) = load(&spec, options(128, 5), Some(PLENTY)).unwrap();
    let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
    control.unwrap().lose();
    assert_eq!(greedy(&engine, &prompt(41), 2).0.ids.len(), 2);
    let placement = engine.set_gpu_layers(3).unwrap();
    assert_eq!((placement.has_accelerator(), placement.gpu_layers), (false, 0));
    let pool = std::sync::Arc::new(backend_cpu::ThreadPool::new(2));
    let config = common::config(backend_cpu::Precision::Fast);
    let (device, _) = backend_cpu::TestDevice::new(pool, config, PLENTY);
    engine.offer_accelerator(0, Box::new(device));
    let placement = engine.set_gpu_layers(3).unwrap();
    assert_eq!((placement.has_accelerator(), placement.gpu_layers), (true, 3));
    assert_eq!(placement.accelerator_used(), placement.accelerator_planned());
    assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected);
}
