//! One model on several accelerators: any split gives the same tokens, layers move between any two places, and what one
//! accelerator fails at is its own affair.

#![allow(clippy::unwrap_used)]

mod common;

use backend_cpu::TestDeviceControl;
use common::{greedy, load, load_several, load_several_with, options, prompt, request};
use engine::{Cancel, Device, Engine, Event, LoadOptions, Positions, Recovery, RecoveryCause};
use model::{Place, Split};
use test_models::ModelSpec;

const PLENTY: u64 = 1 << 30;
const TOKENS: u32 = 24;
const SPLITS: [&[u32]; 8] = [&[2, 3], &[1, 4], &[4, 1], &[0, 5], &[1, 1], &[2, 1, 2], &[0, 2, 1], &[1, 1, 1]];

fn families() -> Vec<ModelSpec> {
    let small = [ModelSpec::llama3(), ModelSpec::mixtral()];
    let mut all: Vec<ModelSpec> = small.into_iter().map(|spec| ModelSpec { n_layer: 4, ..spec }).collect();
    all.extend(ModelSpec::every_kind());
    all
}

fn split(layers: &[u32]) -> Split {
    let mut split = Split::default();
    split.0[..layers.len()].copy_from_slice(layers);
    split
}

fn on(layers: &[u32]) -> LoadOptions {
    LoadOptions { gpu_layers: split(layers), ..options(128, 0) }
}

fn layers(engine: &Engine) -> Vec<u32> {
    engine.placement().accelerators.iter().map(|held| held.layers).collect()
}

/// What is planned is what is allocated, memory by memory.
fn assert_planned(engine: &Engine, about: &str) {
    let placement = engine.placement();
    assert_eq!(placement.host_used, placement.host_planned, "host, {about}");
    for (number, held) in placement.accelerators.iter().enumerate() {
        assert_eq!(held.used, held.planned, "accelerator {number}, {about}");
    }
}

fn another_device() -> Box<dyn Device> {
    let pool = std::sync::Arc::new(backend_cpu::ThreadPool::new(2));
    let config = common::config(backend_cpu::Precision::Fast);
    Box::new(backend_cpu::TestDevice::new(pool, config, PLENTY).0)
}

/// Bytes on one accelerator where layers are shared out like this.
fn bytes(engine: &Engine, layers: &[u32], number: usize) -> u64 {
    let layout = engine.layout();
    layout.placed(&model::Placement::split(split(layers), layout.block_count())).accelerator(number).total()
}

/// An answer, with something done after so many tokens.
fn answer(engine: &Engine, after: u32, then: impl Fn()) -> (Vec<u32>, Vec<Recovery>) {
    let (mut told, mut made) = (Vec::new(), 0);
    let completion = engine.generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| match event {
        Event::Token { .. } => {
            made += 1;
            if made == after {
                then();
            }
        }
        Event::Recovered(recovery) => told.push(recovery),
        Event::Prompt { .. } => {}
    });
    (completion.unwrap().ids, told)
}

fn expected(spec: &ModelSpec) -> Vec<u32> {
    greedy(&load(spec, options(128, 0), None).unwrap().0, &prompt(40), TOKENS).0.ids
}

#[test]
fn any_split_gives_the_same_tokens() {
    for spec in families() {
        let expected = expected(&spec);
        for shares in SPLITS {
            let (engine, _) = load_several(&spec, on(shares), &[PLENTY; 3]).unwrap();
            let about = format!("{} on {shares:?}", spec.arch);
            assert_eq!(engine.placement().placed.shares(), split(shares), "{about}");
            assert_planned(&engine, &about);
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{about}");
            assert_planned(&engine, &about);
        }
    }
}

#[test]
fn layers_move_between_any_two_places_during_an_answer() {
    for spec in families() {
        let expected = expected(&spec);
        let (engine, _) = load_several(&spec, on(&[2, 2]), &[PLENTY; 3]).unwrap();
        let engine = &engine;
        let wishes: [&[u32]; 6] = [&[0, 1, 4], &[5], &[2, 0, 3], &[0, 0, 0], &[1, 3], &[3, 1, 1]];
        let (sender, receiver) = std::sync::mpsc::channel::<&[u32]>();
        let ids = std::thread::scope(|scope| {
            scope.spawn(move || {
                for wish in receiver {
                    let placement = engine.set_gpu_layers(split(wish)).unwrap();
                    assert_eq!(placement.placed.shares(), split(wish));
                    assert_planned(engine, &format!("{wish:?}"));
                }
            });
            let mut made = 0;
            let mut told = Vec::new();
            let completion = engine.generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| match event {
                Event::Token { .. } => {
                    if made % 4 == 0 && made / 4 < wishes.len() {
                        sender.send(wishes[made / 4]).unwrap();
                        // The wish must be there before the next step looks for it.
                        std::thread::sleep(std::time::Duration::from_millis(30));
                    }
                    made += 1;
                }
                Event::Recovered(recovery) => told.push(recovery),
                Event::Prompt { .. } => {}
            });
            drop(sender);
            assert_eq!(told, [], "{}", spec.arch);
            completion.unwrap().ids
        });
        assert_eq!(ids, expected, "{}", spec.arch);
        assert_planned(engine, &spec.arch);
    }
}

/// From one accelerator to another they go without the host, where these can do that: weights, caches and states.
#[test]
fn layers_go_straight_from_one_to_the_other() {
    for spec in families() {
        let expected = expected(&spec);
        for apart in [false, true] {
            let prepare = |control: &TestDeviceControl| {
                if apart {
                    control.set_apart()
                }
            };
            let (engine, controls) = load_several_with(&spec, on(&[2, 3]), &[PLENTY; 2], prepare).unwrap();
            let begun = greedy(&engine, &prompt(40), 8).0.ids;
            for (number, shares) in [(1, [0, 5]), (0, [5, 0])] {
                let layout = engine.layout();
                let of = |placed: &model::Placement| layout.placed(placed).accelerator(number);
                let was = engine.placement().placed;
                let before = (controls[number].copied(), of(&was));
                let placed = engine.set_gpu_layers(split(&shares)).unwrap().placed;
                assert_eq!(placed.shares(), split(&shares), "{}", spec.arch);
                let (copied, after) = (controls[number].copied() - before.0, of(&placed));
                let weights = after.weights - before.1.weights;
                // Of caches the part that is in use; layers that read those of others have none.
                let remembers = |index: &usize| layout.layers[*index].k > 0 || layout.layers[*index].state > 0;
                let moved = |index: &usize| was.place(*index) != placed.place(*index);
                let has_more = (0..layout.block_count()).filter(moved).any(|index| remembers(&index));
                let more = if has_more { copied > weights } else { copied == weights };
                assert!(if apart { copied == 0 } else { more }, "{}: {copied} of {weights}", spec.arch);
                assert!(copied < weights + after.kv, "{}: {copied}", spec.arch);
            }
            let rest = greedy(&engine, &[prompt(40), begun.clone()].concat(), TOKENS - 8).0;
            assert!(rest.reused_tokens >= 40, "the caches came along");
            assert_eq!([begun, rest.ids].concat(), expected, "{}", spec.arch);
            assert_planned(&engine, &spec.arch);
        }
    }
}

/// So does the stream, each row once, where it crosses from one to the other; and one that is lost just there takes its layers
/// along, on either side.
#[test]
fn the_stream_goes_straight_from_one_to_the_other() {
    for spec in families() {
        let expected = expected(&spec);
        for apart in [false, true] {
            let prepare = |control: &TestDeviceControl| {
                if apart {
                    control.set_apart()
                }
            };
            let (engine, controls) = load_several_with(&spec, on(&[2, 3]), &[PLENTY; 2], prepare).unwrap();
            let about = format!("{}, apart: {apart}", spec.arch);
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{about}");
            let stream = u64::from(40 + TOKENS) * 4 * engine.model().stream_length() as u64;
            let shared = engine.layout().layers.iter().any(|layer| layer.cache_source.is_some());
            let copied = [0, 1].map(|number: usize| controls[number].copied());
            match (apart, shared) {
                (true, _) => assert_eq!(copied, [0, 0], "{about}"),
                (false, false) => assert_eq!(copied, [stream, 0], "{about}"),
                // And the cells of caches that layers there read.
                (false, true) => assert!(copied[0] >= stream && copied[1] == 0, "{about}: {copied:?} for {stream}"),
            }
            for (lost, after) in [(1, [2, 0]), (0, [0, 3])] {
                let (engine, controls) = load_several_with(&spec, on(&[2, 3]), &[PLENTY; 2], prepare).unwrap();
                let (ids, told) = answer(&engine, 5, || match lost {
                    0 => controls[0].lose(),
                    _ => controls[1].lose_when_read(),
                });
                assert_eq!(ids, expected, "{about}, {lost} lost");
                let [recovery] = told[..] else { panic!("{about}, {lost} lost: {told:?}") };
                assert_eq!((recovery.cause, recovery.accelerator), (RecoveryCause::DeviceLost, lost), "{about}");
                assert_eq!(layers(&engine), after, "{about}");
                assert_planned(&engine, &about);
            }
        }
    }
}

/// Nobody waits where bytes go from one to the other: that the first one had failed shows later. No token comes from what it
/// sent, and no layer is kept of it.
#[test]
fn what_comes_from_one_that_had_failed_counts_for_nothing() {
    for spec in families() {
        let expected = expected(&spec);
        let (engine, controls) = load_several(&spec, on(&[2, 3]), &[PLENTY; 2]).unwrap();
        let (ids, told) = answer(&engine, 5, || controls[1].fail_unseen());
        assert_eq!(ids, expected, "{}", spec.arch);
        let [recovery] = told[..] else { panic!("{}: {told:?}", spec.arch) };
        assert_eq!((recovery.cause, recovery.accelerator), (RecoveryCause::DeviceLost, 1), "{}", spec.arch);
        assert_eq!(layers(&engine), [2, 0], "{}", spec.arch);

        let (engine, controls) = load_several(&spec, on(&[2, 3]), &[PLENTY; 2]).unwrap();
        let begun = greedy(&engine, &prompt(40), 8).0.ids;
        controls[1].fail_unseen();
        engine.set_gpu_layers(split(&[5, 0])).unwrap();
        let told = engine.take_recoveries().unwrap();
        let [recovery] = told[..] else { panic!("{}: {told:?}", spec.arch) };
        assert_eq!((recovery.cause, recovery.accelerator), (RecoveryCause::DeviceLost, 1), "{}", spec.arch);
        assert_eq!(layers(&engine), [2, 0], "{}", spec.arch);
        let rest = greedy(&engine, &[prompt(40), begun.clone()].concat(), TOKENS - 8).0;
        assert_eq!([begun, rest.ids].concat(), expected, "{}", spec.arch);
        assert_planned(&engine, &spec.arch);
    }
}

/// Accelerators that have just the room for each of two placements: layers change places by way of the host.
#[test]
fn full_accelerators_change_places() {
    for spec in [ModelSpec { n_layer: 4, ..ModelSpec::llama3() }, ModelSpec::gemma4()] {
        let expected = expected(&spec);
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let room = |number| bytes(&engine, &[3, 2], number).max(bytes(&engine, &[2, 3], number));
        let (engine, _) = load_several(&spec, on(&[3, 2]), &[room(0), room(1)]).unwrap();
        assert_eq!(layers(&engine), [3, 2]);
        let begun = greedy(&engine, &prompt(40), 8).0.ids;
        for shares in [&[2, 3], &[3, 2], &[2, 3]] {
            assert_eq!(engine.set_gpu_layers(split(shares)).unwrap().placed.shares(), split(shares), "{}", spec.arch);
            assert_planned(&engine, &spec.arch);
        }
        assert_eq!(engine.take_recoveries().unwrap(), []);
        let rest = greedy(&engine, &[prompt(40), begun.clone()].concat(), TOKENS - 8).0;
        assert!(rest.reused_tokens >= 40, "the caches came along");
        assert_eq!([begun, rest.ids].concat(), expected);
    }
}

/// Layers that went round by and by, each to the next one, while memory was short here and there, have changed places: they
/// come back by way of the host where there is no room for both.
#[test]
fn layers_that_changed_places_come_back() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let expected = expected(&spec);
    let (engine, controls) = load_several(&spec, on(&[2, 2, 1]), &[PLENTY; 3]).unwrap();
    let used = |number: usize| engine.placement().accelerators[number].used;
    let before = engine.placement().placed;
    let needed = [0, 1, 2].map(used);
    for pressed in [2, 0, 1] {
        controls[pressed].set_others(PLENTY - used(pressed) + 1);
        // It is asked for now and then only.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let (ids, told) = answer(&engine, u32::MAX, || {});
        assert_eq!((ids, told.len()), (expected.clone(), 1));
        assert_eq!((told[0].accelerator, told[0].layers_shifted, told[0].layers_moved), (pressed, 1, 0));
        controls[pressed].set_others(0);
    }
    let now = engine.placement().placed;
    assert_eq!((now.place(0), now.place(4)), (Place::Accelerator(0), Place::Accelerator(2)), "{now:?}");
    for number in 0..3 {
        controls[number].set_limit(needed[number].max(used(number)));
    }
    assert_eq!(engine.set_gpu_layers(split(&[2, 2, 1])).unwrap().placed, before);
    assert_eq!(engine.take_recoveries().unwrap(), []);
    assert_planned(&engine, "back");
    assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected);
}

#[test]
fn one_too_small_at_load_leaves_layers_to_the_others_and_then_to_the_host() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let expected = expected(&spec);
    let (engine, _) = load(&spec, options(128, 0), None).unwrap();
    let small = bytes(&engine, &[1, 3], 0);
    for (rooms, on_each, shifted, moved) in [
        ([small, PLENTY], [1, 4], 3, 0),
        // The second has room for its own and one more: the rest is on the host.
        ([small, bytes(&engine, &[0, 2], 1)], [1, 2], 1, 2),
        ([0, PLENTY], [0, 5], 4, 0),
        ([0, 0], [0, 0], 0, 5),
    ] {
        let (engine, _) = load_several(&spec, on(&[4, 1]), &rooms).unwrap();
        assert_eq!(layers(&engine), on_each, "{rooms:?}");
        assert_planned(&engine, &format!("{rooms:?}"));
        let recovery = Recovery {
            cause: RecoveryCause::OutOfMemory,
            accelerator: 0,
            layers_moved: moved,
            layers_shifted: shifted,
            experts_moved: 0,
            gpu_layers: 5 - moved,
        };
        assert_eq!(engine.take_recoveries().unwrap(), [recovery], "{rooms:?}");
        assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{rooms:?}");
    }
}

/// What a plan leaves to other programs stays theirs when layers come that were not meant for an accelerator; those that
/// were meant for it come all the same.
#[test]
fn layers_that_come_unplanned_leave_the_margin() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let expected = expected(&spec);
    let (engine, _) = load(&spec, options(128, 0), None).unwrap();
    let room = |number, shares: &[u32]| bytes(&engine, shares, number);
    let (all, own) = (room(1, &[0, 5]), room(1, &[3, 2]));
    for (margin, on_each) in [(0, [0, 5]), (1, [0, 4]), (all - own, [0, 2]), (all, [0, 2])] {
        // At load: the first has no room, the second room for all.
        let rooms = [0, all];
        let (loaded, controls) =
            load_several_with(&spec, on(&[3, 2]), &rooms, |control| control.set_margin(margin)).unwrap();
        let about = format!("{margin} of {all} are left");
        assert_eq!(layers(&loaded), on_each, "{about}");
        assert_planned(&loaded, &about);
        assert_eq!(loaded.take_recoveries().unwrap().len(), 1, "{about}");
        assert_eq!(greedy(&loaded, &prompt(40), TOKENS).0.ids, expected, "{about}");
        // Asked for again, from there and from the host, and when there is room where they belong.
        assert_eq!(layers_after(&loaded, &[3, 2]), on_each, "{about}");
        assert_eq!(layers_after(&loaded, &[]), [0, 0], "{about}");
        assert_eq!(layers_after(&loaded, &[3, 2]), on_each, "{about}");
        controls[0].set_limit(PLENTY);
        assert_eq!(layers_after(&loaded, &[3, 2]), [3, 2], "{about}");
        // During an answer: its memory ends.
        loaded.take_recoveries().unwrap();
        let (ids, told) = answer(&loaded, 5, || controls[0].set_limit(0));
        assert_eq!(ids, expected, "{about}");
        let [recovery] = told[..] else { panic!("{about}: {told:?}") };
        assert_eq!((recovery.layers_shifted, recovery.layers_moved), (on_each[1] - 2, 5 - on_each[1]), "{about}");
        assert_eq!(layers(&loaded), on_each, "{about}");
        assert_planned(&loaded, &about);
    }
}

/// The memory of one ends during an answer: its layers go to the other, if that has room, or to the host; the other's stay.
#[test]
fn memory_that_ends_on_one_costs_only_its_layers() {
    for spec in families() {
        let expected = expected(&spec);
        for (short, room, left, moved) in [
            (0, PLENTY, [1, 4], 0),
            (1, PLENTY, [4, 1], 0),
            // No room for any more on the other.
            (0, 0, [1, 2], 2),
            (1, 0, [3, 1], 1),
        ] {
            let about = format!("{}, {short} with {room} beside", spec.arch);
            let (engine, controls) = load_several(&spec, on(&[3, 2]), &[PLENTY; 2]).unwrap();
            let before = engine.placement();
            if room == 0 {
                // To the byte.
                controls[1 - short].set_limit(before.accelerators[1 - short].used);
            }
            // Room for one layer of the two or three: whichever it is.
            let blocks = engine.layout().block_count();
            let kept = if short == 0 { [blocks - 1] } else { [blocks - 3] };
            let only =
                (0..=blocks).map(|index| if kept.contains(&index) { Place::Accelerator(short) } else { Place::Host });
            let limit = engine.layout().placed(&model::Placement::at(only)).accelerator(short).total();
            let (ids, told) = answer(&engine, 5, || controls[short].set_limit(limit));
            assert_eq!(ids, expected, "{about}");
            let [recovery] = told[..] else { panic!("{about}: {told:?}") };
            assert_eq!((recovery.cause, recovery.accelerator), (RecoveryCause::OutOfMemory, short), "{about}");
            let (after, number) = (engine.placement(), 1 - short);
            assert!(after.accelerators[short].layers < before.accelerators[short].layers, "{about}");
            assert!(after.accelerators[number].layers >= before.accelerators[number].layers, "{about}");
            for index in 0..=blocks {
                let was = before.placed.place(index);
                assert!(was != Place::Accelerator(number) || after.placed.place(index) == was, "{about}: its own stay");
            }
            let gone = before.accelerators[short].layers - after.accelerators[short].layers;
            assert_eq!(recovery.layers_moved + recovery.layers_shifted, gone, "{about}");
            assert_eq!(recovery.layers_moved == 0, room > 0, "{about}: {recovery:?}");
            assert_eq!(recovery.gpu_layers, after.gpu_layers);
            assert_planned(&engine, &about);
            // As it is with layers that are all alike.
            if spec.arch == "llama" && spec.n_layer == 4 {
                assert_eq!((layers(&engine), recovery.layers_moved), (left.to_vec(), moved), "{about}");
            }
            // When there is room again, everything goes back.
            controls.iter().for_each(|control| control.set_limit(PLENTY));
            assert_eq!(engine.set_gpu_layers(split(&[3, 2])).unwrap().placed, before.placed, "{about}");
            assert_planned(&engine, &about);
        }
    }
}

#[test]
fn a_lost_accelerator_takes_only_its_layers_along() {
    for spec in families() {
        let expected = expected(&spec);
        for (lost, after) in [(0, [0, 2]), (1, [3, 0])] {
            let about = format!("{}, {lost} lost", spec.arch);
            let (engine, controls) = load_several(&spec, on(&[3, 2]), &[PLENTY; 2]).unwrap();
            let (ids, told) = answer(&engine, 7, || controls[lost].lose());
            assert_eq!(ids, expected, "{about}");
            let moved = [3, 2][lost];
            let recovery = Recovery {
                cause: RecoveryCause::DeviceLost,
                accelerator: lost,
                layers_moved: moved,
                layers_shifted: 0,
                experts_moved: 0,
                gpu_layers: 5 - moved,
            };
            assert_eq!(told, [recovery], "{about}");
            assert_eq!(layers(&engine), after, "{about}");
            let present: Vec<bool> = engine.placement().accelerators.iter().map(|held| held.present).collect();
            assert_eq!(present, [lost != 0, lost != 1], "{about}");
            assert_planned(&engine, &about);
            // What is wished for the lost one stays on the host; another device takes its place.
            let wished = engine.set_gpu_layers(split(&[3, 2])).unwrap();
            assert_eq!(wished.accelerators[lost].layers, 0, "{about}");
            engine.offer_accelerator(lost, another_device());
            assert_eq!(engine.set_gpu_layers(split(&[3, 2])).unwrap().placed.shares(), split(&[3, 2]), "{about}");
            assert_planned(&engine, &about);
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{about}");
        }
    }
}

/// Both at once, and one that is gone before anything was put there.
#[test]
fn all_may_be_lost() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let expected = expected(&spec);
    let (engine, controls) = load_several(&spec, on(&[2, 3]), &[PLENTY; 2]).unwrap();
    let (ids, told) = answer(&engine, 4, || controls.iter().for_each(|control| control.lose()));
    assert_eq!((ids, told.len(), engine.placement().gpu_layers), (expected.clone(), 2, 0));
    assert!(!engine.placement().has_accelerator());
    let (engine, controls) = load_several(&spec, on(&[]), &[PLENTY; 2]).unwrap();
    controls[0].lose();
    assert_eq!(engine.set_gpu_layers(split(&[2, 3])).unwrap().gpu_layers, 0, "it is seen when it is used");
    assert_eq!(layers_after(&engine, &[2, 3]), [0, 3]);
    assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected);
}

fn layers_after(engine: &Engine, wish: &[u32]) -> Vec<u32> {
    engine.set_gpu_layers(split(wish)).unwrap();
    layers(engine)
}

/// Other programs press for one's memory before anything fails.
#[test]
fn layers_leave_the_one_that_others_need() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let expected = expected(&spec);
    for pressed in [0, 1] {
        let (engine, controls) = load_several(&spec, on(&[3, 2]), &[PLENTY; 2]).unwrap();
        let used = engine.placement().accelerators[pressed].used;
        let (ids, told) = answer(&engine, 5, || {
            controls[pressed].set_others(PLENTY - used * 2 / 3);
            // It is asked for now and then only.
            std::thread::sleep(std::time::Duration::from_millis(300));
        });
        assert_eq!(ids, expected);
        let [recovery] = told[..] else { panic!("{told:?}") };
        assert_eq!((recovery.accelerator, recovery.layers_moved), (pressed, 0));
        assert!(recovery.layers_shifted > 0 && recovery.gpu_layers == 5, "{recovery:?}");
        assert!(engine.placement().accelerators[pressed].used <= used * 2 / 3);
        // With both pressed, the host takes them.
        let [first, second] = [0, 1].map(|number| engine.placement().accelerators[number].used);
        let both = || {
            controls[0].set_others(PLENTY - first / 2);
            controls[1].set_others(PLENTY - second / 2);
            std::thread::sleep(std::time::Duration::from_millis(300));
        };
        let (ids, told) = answer(&engine, 5, both);
        assert_eq!(ids, expected);
        assert!(told.iter().all(|recovery| recovery.layers_shifted == 0 && recovery.layers_moved > 0), "{told:?}");
        assert_planned(&engine, "pressed");
    }
}

/// Experts of the first layers stay on the host, whichever accelerator has the rest of them.
#[test]
fn experts_stay_on_the_host_on_any_split() {
    for spec in [ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() }, ModelSpec { n_layer: 4, ..ModelSpec::mixtral() }] {
        let expected = expected(&spec);
        for shares in [&[2, 3], &[4, 1], &[1, 2]] {
            let (engine, controls) = load_several(&spec, on(shares), &[PLENTY; 2]).unwrap();
            for cpu_moe in [4, 1, 2, 0, 3] {
                let placement = engine.place(split(shares), cpu_moe).unwrap();
                let first = 4 - shares.iter().sum::<u32>().min(4);
                assert_eq!((placement.cpu_moe, placement.placed.shares()), (cpu_moe, split(shares)));
                assert_eq!(placement.experts_apart, cpu_moe.saturating_sub(first), "{shares:?} {cpu_moe}");
                assert_planned(&engine, &format!("{shares:?} {cpu_moe}"));
                assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{shares:?} {cpu_moe}");
            }
            // Layers without their experts go from one to the other.
            engine.place(split(shares), 3).unwrap();
            let turned = [shares[1], shares[0]];
            let placement = engine.place(split(&turned), 3).unwrap();
            assert_eq!(placement.placed.shares(), split(&turned));
            assert_planned(&engine, &format!("{turned:?} 3"));
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{turned:?}");
            // One is lost: what of its layers was on the host is not there twice.
            let (ids, told) = answer(&engine, 5, || controls[1].lose());
            assert_eq!((ids, told.len()), (expected.clone(), 1));
            assert_planned(&engine, &format!("{turned:?} lost"));
            // Nothing of them is left there when all are whole on accelerators.
            engine.place(split(&[0, 0]), 0).unwrap();
            engine.offer_accelerator(1, another_device());
            assert_eq!(engine.place(split(&[2, 3]), 0).unwrap().placed.shares(), split(&[2, 3]));
            assert_planned(&engine, &format!("{turned:?} back"));
        }
    }
}

/// What is remembered does not depend on where layers are; parts in the middle can be left out on any split.
#[test]
fn sequences_are_saved_and_moved_up_on_any_split() {
    for spec in [ModelSpec { n_layer: 4, ..ModelSpec::llama3() }, ModelSpec::gemma4(), ModelSpec::qwen35()] {
        let (host, _) = load(&spec, options(256, 0), None).unwrap();
        let (several, _) =
            load_several(&spec, LoadOptions { gpu_layers: split(&[2, 2]), ..options(256, 0) }, &[PLENTY; 2]).unwrap();
        let saved = [&host, &several].map(|engine| {
            greedy(engine, &prompt(60), 4);
            let mut bytes = Vec::new();
            engine.save(&mut bytes).unwrap();
            bytes
        });
        assert!(saved[0] == saved[1], "{}", spec.arch);
        // Back on another split, with layers in between on the host.
        several.set_gpu_layers(split(&[1, 3])).unwrap();
        several.forget().unwrap();
        several.restore(&mut &saved[0][..]).unwrap();
        let tokens = [prompt(60), vec![5, 6, 7]].concat();
        let row = |engine: &Engine| {
            let mut row = Vec::new();
            let completion = greedy(engine, &tokens, 8).0;
            assert!(completion.reused_tokens > 0 || spec.arch == "qwen35", "{}", spec.arch);
            engine.logits(&tokens, Positions::Last, &Cancel::new(), &mut |values| row = values.to_vec()).unwrap();
            (completion.ids, row)
        };
        assert_eq!(row(&several), row(&host), "{}", spec.arch);
        let without = [&prompt(60)[..10], &prompt(60)[25..]].concat();
        let moved = [&host, &several].map(|engine| {
            greedy(engine, &prompt(60), 1);
            (engine.shift(&without).unwrap(), greedy(engine, &without, 8).0.ids)
        });
        assert_eq!(moved[0], moved[1], "{}", spec.arch);
    }
}
