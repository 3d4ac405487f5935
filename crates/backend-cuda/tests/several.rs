//! Several GPUs of the fake driver, and one model on them. See `libcuda.rs`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // a test

mod common;

use backend::Device as _;
use backend_cuda::{Absent, Card, GpuConfig, GpuDevice, LateDevice, Listed};
use common::fake::{counts, device, devices, greedy, host, load_on, logits, split, trained, with_driver};
use common::library;
use engine::RecoveryCause;
use std::sync::Arc;
use test_models::ModelSpec;

/// Two GPUs have memory and failures of their own; they are told apart without being opened.
#[test]
fn two_devices() {
    with_driver("two_devices", &[("FAKE_CUDA_CAPABILITY", "86,52")], || {
        let listed = Listed::all().unwrap();
        let [first, second] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((first.number, first.name.as_str(), first.capability), (0, "Fake GPU", (8, 6)));
        assert_eq!((second.number, second.name.as_str(), second.capability), (1, "Fake GPU 2", (5, 2)));
        assert_eq!(first.id, "GPU-01010101-0101-0101-0101-010101010101");
        assert!(first.id != second.id && first.is_usable() && !second.is_usable());
        let too_old = Absent::DeviceTooOld { capability: (5, 2), needed: (6, 1) };
        assert_eq!(Card::open(1).err(), Some(too_old));
        assert!(Card::open(2).is_err());
        assert_eq!(Card::open(0).unwrap().id(), first.id);
    });
}

#[test]
fn two_devices_at_once() {
    with_driver("two_devices_at_once", &[("FAKE_CUDA_MEMORY", "400000000,900000000")], || {
        let totals: Vec<u64> = Listed::all().unwrap().iter().map(|listed| listed.total_bytes).collect();
        assert_eq!(totals, [400_000_000, 900_000_000]);
        let cards = [0, 1].map(|number| Card::open(number).unwrap());
        let mut devices = [0, 1].map(|n: usize| {
            let (before, of) = cards[n].compiled();
            assert!(before == 0 && of > 5, "{before} of {of}");
            let driver = cards[n].driver().unwrap();
            assert_eq!(cards[n].compiled(), (of, of), "every module of each card");
            GpuDevice::new(driver, GpuConfig::default())
        });
        let bytes: Vec<u8> = [7, 1, 2, 3].repeat(75_000_000);
        let kept: Vec<_> = devices.iter_mut().map(|device| device.adopt(Arc::new(bytes.clone())).unwrap()).collect();
        // The first is full, the second is not.
        assert!(devices[0].allocate(300_000_000).is_err());
        devices[1].allocate(300_000_000).unwrap();
        assert!(cards[0].free_bytes().unwrap() < 100_000_000 && cards[1].free_bytes().unwrap() > 200_000_000);
        for (device, buffer) in devices.iter_mut().zip(kept) {
            let mut read = vec![0; 1000];
            device.read(buffer, 256_000, &mut read).unwrap();
            assert_eq!(read, bytes[..1000]);
        }
        // What was compiled is not compiled again.
        let code = cards[0].free_bytes();
        cards[0].driver().unwrap();
        assert_eq!(cards[0].free_bytes(), code);
    });
}

/// One model on two GPUs has the bits of one, whichever layers each has, and each has taken what is planned for it.
#[test]
fn one_model_on_two_devices() {
    with_driver("one_model_on_two_devices", &[("FAKE_CUDA_MEMORY", "8589934592,1073741824")], || {
        let cards = [0, 1].map(|number| Card::open(number).unwrap());
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        let spec = ModelSpec { n_embd: 1024, n_ff: 2600, n_layer: 4, ..ModelSpec::llama3() };
        std::fs::write(file.path(), spec.build()).unwrap();
        let one = load_on(file.path(), devices(&cards[..1]), 99);
        let expected = [5, 3].map(|layers| {
            one.set_gpu_layers(layers).unwrap();
            logits(&one)
        });
        drop(one);
        for (shares, bits) in [([3, 2], 0), ([1, 4], 0), ([0, 5], 0), ([2, 1], 1), ([1, 2], 1)] {
            let engine = load_on(file.path(), devices(&cards), split(&shares));
            assert!(logits(&engine) == expected[bits], "{shares:?}");
            let placement = engine.placement();
            let accelerator = |number: usize| planner::AcceleratorFacts {
                memory_free: cards[number].total_bytes(),
                scratch: backend_cuda::scratch,
                footprint: backend_cuda::footprint,
                ..planner::AcceleratorFacts::default()
            };
            let accelerators = [0, 1].map(accelerator).to_vec();
            let facts = planner::Facts { ram_available: 1 << 40, accelerators, ..planner::Facts::default() };
            let params = engine.layout().params;
            let wishes = planner::Wishes {
                context: Some(params.context),
                ubatch: Some(params.ubatch),
                ..planner::Wishes::default()
            };
            let plan = planner::plan_placed(engine.model(), None, &facts, &wishes, &placement.placed).unwrap();
            for (number, (share, held)) in plan.shares.iter().zip(&placement.accelerators).enumerate() {
                assert_eq!(
                    (share.layers, held.used, held.planned),
                    (shares[number], held.planned, share.parts.total())
                );
                // But for a slab for what is small, which may as well lie in what large ones leave of their pages.
                let (given, planned) = (cards[number].taken_bytes(), share.total());
                let slack = if share.layers > 0 { 16 << 20 } else { 0 };
                assert!(given.abs_diff(planned) <= slack, "{shares:?}, {number}: {given} given, {planned} planned");
            }
            // Away, to each other and back, from another thread.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for wish in [&[0, 5][..], &[5, 0], &[1, 1], &shares] {
                        assert_eq!(engine.set_gpu_layers(split(wish)).unwrap().placed.shares(), split(wish));
                    }
                });
            });
            assert!(logits(&engine) == expected[bits], "{shares:?}, moved");
            drop(engine);
            assert_eq!([0, 1].map(|number| cards[number].taken_bytes()), [0, 0], "{shares:?}");
        }
    });
}

/// Layers go from one GPU to another without the host, as the hardware allows; where the driver refuses that, has no function
/// for it, or something else arrives, they go as before. What they remember has the same bits all the same.
#[test]
fn layers_go_from_gpu_to_gpu() {
    if std::env::var_os("FAKE_CUDA_MODULES").is_some() {
        return go_from_gpu_to_gpu();
    }
    let ways = ["0", "1", "2", "3"].map(|way| ("FAKE_CUDA_PEERS", way));
    with_driver("layers_go_from_gpu_to_gpu", &ways, go_from_gpu_to_gpu);
    // A library whose function has another name.
    let folder = tempfile::tempdir().unwrap();
    let mut library = std::fs::read(library::compile("emulator/libcuda.cpp")).unwrap();
    let name = b"cuMemcpyPeerAsync\0";
    let found: Vec<usize> = (0..library.len() - name.len()).filter(|at| library[*at..].starts_with(name)).collect();
    assert!(!found.is_empty());
    found.into_iter().for_each(|at| library[at] = b'x');
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::fs::write(folder.path().join(name), &library).unwrap();
    }
    let path = folder.path().to_str().unwrap().to_owned();
    with_driver("layers_go_from_gpu_to_gpu", &[("LD_LIBRARY_PATH", &path)], go_from_gpu_to_gpu);
}

fn go_from_gpu_to_gpu() {
    let counted = tempfile::NamedTempFile::new().unwrap();
    // SAFETY: a process with one test, which has started no other threads yet.
    unsafe {
        std::env::set_var("FAKE_CUDA_DEVICES", "2");
        std::env::set_var("FAKE_CUDA_COUNTS", counted.path());
    }
    let cards = [0, 1].map(|number| Card::open(number).unwrap());
    let engine = load_on(&trained(), devices(&cards), split(&[3, 2]));
    // Before anything was computed: what was uploaded may still be on its way.
    for shares in [&[0, 5], &[3, 2]] {
        assert_eq!(engine.set_gpu_layers(split(shares)).unwrap().placed.shares(), split(shares));
    }
    let prompt: Vec<u32> = (0..21).map(|i| (i * 37 + 11) % 300 + 3).collect();
    let begun = greedy(&engine, &prompt, 6);
    let remembered = || {
        let mut saved = Vec::new();
        engine.save(&mut saved).unwrap();
        saved
    };
    let before = remembered();
    let copies = || {
        let [.., staged, direct, _] = counts(counted.path());
        [staged, direct]
    };
    // All to the second, all to the first, and back.
    for shares in [&[0, 5], &[5, 0], &[3, 2]] {
        assert_eq!(engine.set_gpu_layers(split(shares)).unwrap().placed.shares(), split(shares));
        assert!(remembered() == before, "{shares:?}");
        let placement = engine.placement();
        assert_eq!(placement.accelerator_used(), placement.accelerator_planned());
    }
    assert_eq!(engine.take_recoveries().unwrap(), []);
    // Weights, keys and values of sixteen layers that moved.
    let many = 16 * 3..10_000;
    let way = std::env::var("FAKE_CUDA_PEERS").ok();
    match (way.as_deref(), copies()) {
        (Some("0") | None, [0, 0]) => {}
        (Some("1"), [staged, 0]) => assert!(many.contains(&staged), "{staged}"),
        (Some("2"), [0, direct]) => assert!(many.contains(&direct), "{direct}"),
        // One in each direction.
        (Some("3"), [0, 2]) => {}
        other => panic!("{other:?}"),
    }
    let again = greedy(&engine, &[prompt.clone(), begun.clone()].concat(), 6);
    drop(engine);
    let one = load_on(&trained(), devices(&cards[..1]), 99);
    assert_eq!(greedy(&one, &prompt, 12), [begun, again].concat());
}

/// Two GPUs of a process with one test, and the file in which their driver counts.
fn two_cards_that_count() -> ([Card; 2], tempfile::NamedTempFile) {
    let counted = tempfile::NamedTempFile::new().unwrap();
    // SAFETY: a process with one test, which has started no other threads yet.
    unsafe {
        std::env::set_var("FAKE_CUDA_DEVICES", "2");
        std::env::set_var("FAKE_CUDA_COUNTS", counted.path());
    }
    ([0, 1].map(|number| Card::open(number).unwrap()), counted)
}

/// The stream goes from one GPU to another without the host, where these can do that; its bits are the same in any case. The one
/// that is lost at the crossing takes its layers along.
#[test]
fn the_stream_goes_from_gpu_to_gpu() {
    let ways = ["0", "1", "2", "3", "5", "6"].map(|way| ("FAKE_CUDA_PEERS", way));
    with_driver("the_stream_goes_from_gpu_to_gpu", &ways, || {
        let (cards, counted) = two_cards_that_count();
        let expected = logits(&load_on(&trained(), devices(&cards[..1]), 5));
        let engine = load_on(&trained(), devices(&cards), split(&[3, 2]));
        let found = logits(&engine);
        let held: Vec<u32> = engine.placement().accelerators.iter().map(|held| held.layers).collect();
        let lost = [0, 1].map(|number: usize| cards[number].lost().is_some());
        let way = std::env::var("FAKE_CUDA_PEERS").unwrap();
        match way.as_str() {
            "5" => assert_eq!((held, lost), (vec![3, 0], [false, true])),
            "6" => assert_eq!((held, lost), (vec![0, 2], [true, false])),
            _ => {
                assert!(found == expected, "{way}");
                // Two micro-batches; what was wrong once is not tried again.
                let [.., staged, direct, _] = counts(counted.path());
                let copies = [[0, 0], [2, 0], [0, 2], [0, 1]][way.parse::<usize>().unwrap()];
                assert_eq!((held, lost, [staged, direct]), (vec![3, 2], [false, false], copies), "{way}");
            }
        }
        // With one of them on the CPU the bits are others.
        assert_eq!(found.len(), expected.len());
    });
}

/// What arrives is compared until copies of that size were seen to be right; after one that was not, all go through pinned memory.
#[test]
fn larger_copies_are_compared_again() {
    let settings = [("FAKE_CUDA_PEERS", "2"), ("FAKE_CUDA_PEERS", "4")];
    with_driver("larger_copies_are_compared_again", &settings, || {
        let counted = tempfile::NamedTempFile::new().unwrap();
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe {
            std::env::set_var("FAKE_CUDA_DEVICES", "2");
            std::env::set_var("FAKE_CUDA_COUNTS", counted.path());
        }
        let [mut from, mut to] = [0, 1].map(|number| device(&Card::open(number).unwrap()));
        let bytes: Vec<u8> = (0..200_000).map(|i| (i * 31 + i / 255) as u8).collect();
        let (there, here) = (from.adopt(Arc::new(bytes.clone())).unwrap(), to.allocate(200_000).unwrap());
        for len in [1000, 60_000, 10, 200_000, 1000] {
            assert!(to.copy_from((here, 0), &mut *from, (there, 0), len), "{len}");
            let mut read = vec![0; len as usize];
            to.read(here, 0, &mut read).unwrap();
            assert!(read == bytes[..len as usize], "{len}");
        }
        let [.., direct, _] = counts(counted.path());
        assert_eq!(direct, if std::env::var("FAKE_CUDA_PEERS").unwrap() == "2" { 5 } else { 4 });
    });
}

/// Nobody waits where the stream goes from one GPU to the other, however the bytes get there: the host gives both their work and
/// waits for the logits alone.
#[test]
fn the_host_does_not_wait_at_crossings() {
    let ways = ["0", "1", "2", "3"].map(|way| ("FAKE_CUDA_PEERS", way));
    with_driver("the_host_does_not_wait_at_crossings", &ways, || {
        let (cards, counted) = two_cards_that_count();
        let engine = load_on(&trained(), devices(&cards), split(&[4, 3]));
        let waits = |prompt: &[u32], count: u32| {
            let before = counts(counted.path())[6];
            let made = greedy(&engine, prompt, count);
            (made, counts(counted.path())[6] - before)
        };
        // What the first copies brought is compared.
        let prompt = |first: u32| (0..32).map(|i| (i * 37 + first) % 300 + 3).collect::<Vec<u32>>();
        let begun = greedy(&engine, &prompt(1), 4);
        let longer = [prompt(1), begun].concat();
        let (more, generated) = waits(&longer, 8);
        assert_eq!((more.len(), generated), (8, 9), "once for each row of logits: the prompt's, and each token's");
        // Two micro-batches, of which nobody wants to know anything but the last row.
        let (_, read) = waits(&prompt(2), 1);
        assert_eq!(read, 2);
    });
}

/// A copy comes after what was given to the other GPU before, and before what is given to it next, in whatever way it is made.
#[test]
fn copies_between_gpus_wait_for_both() {
    let ways = ["0", "1", "2", "3"].map(|way| ("FAKE_CUDA_PEERS", way));
    let at_once = [("FAKE_CUDA_LATE", "0")];
    with_driver("copies_between_gpus_wait_for_both", &[&ways[..], &at_once].concat(), || {
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe { std::env::set_var("FAKE_CUDA_DEVICES", "2") };
        let [mut from, mut to] = [0, 1].map(|number| device(&Card::open(number).unwrap()));
        // Every piece of the way through pinned memory is another.
        let [one, other] = [3, 7].map(|first| (0..5 << 20).map(|i| (i >> 18) as u8 * 11 + first).collect::<Vec<u8>>());
        let (here, there) = (to.allocate(6 << 20).unwrap(), from.adopt(Arc::new(one.clone())).unwrap());
        let mut read = vec![0; one.len()];
        // On its way while it is copied.
        assert!(to.copy_from((here, 4), &mut *from, (there, 0), one.len() as u64));
        to.read(here, 4, &mut read).unwrap();
        assert!(read == one);
        // Written over as soon as it was copied.
        let there = from.allocate(one.len() as u64).unwrap();
        from.write(there, 0, &other).unwrap();
        assert!(to.copy_from((here, 4), &mut *from, (there, 0), one.len() as u64));
        from.write(there, 0, &one).unwrap();
        from.read(there, 0, &mut read).unwrap();
        to.read(here, 4, &mut read).unwrap();
        assert!(read == other);
        // Given back as soon as it was copied, and the memory used for something else.
        let large = vec![5u8; 20 << 20];
        let (target, source) = (to.allocate(20 << 20).unwrap(), from.adopt(Arc::new(large.clone())).unwrap());
        for _ in 0..2 {
            assert!(to.copy_from((target, 0), &mut *from, (source, 0), large.len() as u64));
        }
        from.free(source);
        let next = from.adopt(Arc::new(vec![6u8; 20 << 20])).unwrap();
        let mut read = vec![0; large.len()];
        from.read(next, 0, &mut read).unwrap();
        to.read(target, 0, &mut read).unwrap();
        assert!(read == large);
        // What is outside of a buffer, or on another kind of device, is not copied like this.
        assert!(!to.copy_from((here, 4), &mut *from, (there, 1), one.len() as u64));
        assert!(!to.copy_from((here, 2 << 20), &mut *from, (there, 0), one.len() as u64));
        assert!(!to.copy_from((here, 0), &mut *host(), (there, 0), 1));
    });
}

/// Devices that are opened when they are first given something: not by what does nothing. Then they are as others.
#[test]
fn late_devices_open_when_they_are_given_something() {
    let counted = tempfile::NamedTempFile::new().unwrap();
    let settings = [("FAKE_CUDA_OPENED", counted.path().to_str().unwrap())];
    with_driver("late_devices_open_when_they_are_given_something", &settings, || {
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe { std::env::set_var("FAKE_CUDA_DEVICES", "2") };
        let opened = || std::fs::read_to_string(std::env::var("FAKE_CUDA_OPENED").unwrap()).unwrap();
        let late = |number: usize| {
            let open = move || {
                let card = Card::open(number).map_err(|absent| format!("{absent:?}"))?;
                let driver = card.driver().map_err(|absent| format!("{absent:?}"))?;
                Ok(GpuDevice::new(driver, GpuConfig::default()))
            };
            Box::new(LateDevice::new(format!("late {number}"), Box::new(open), Box::new(|| 1 << 30)))
        };
        let mut gone = late(2);
        assert!(matches!(gone.allocate(10), Err(backend::BackendError::Lost { .. })));
        let [mut one, mut other] = [0, 1].map(late);
        one.finish().unwrap();
        one.turn().unwrap();
        one.start().unwrap();
        assert_eq!((one.spare(), one.pressure(), one.memory().used), (1 << 30, 0, 0));
        assert!(one.write(backend::BufferId(0), 0, &[1]).is_err() && opened().is_empty());
        let from = one.adopt(Arc::new(vec![7u8; 1000])).unwrap();
        assert_eq!((opened().as_str(), one.memory().used), ("1,0", 1000));
        let to = other.allocate(1000).unwrap();
        assert_eq!(opened(), "1,1");
        assert!(other.copy_from((to, 0), &mut *one, (from, 0), 1000), "as between other devices");
        let mut read = [0; 1000];
        other.read(to, 0, &mut read).unwrap();
        assert_eq!(read, [7; 1000]);
        // One model on both, and nothing opened that has no layer.
        drop((one, other));
        let engine = load_on(&trained(), [0, 1].map(|number| Some(late(number) as Box<dyn backend::Device>)).into(), 5);
        let expected = logits(&engine);
        assert_eq!(opened(), "2,1");
        engine.set_gpu_layers(split(&[3, 2])).unwrap();
        assert_eq!(opened(), "2,2");
        assert!(logits(&engine) == expected);
    });
}

/// The memory of one ends at load, one is lost in the middle: the other keeps its layers, and the answer goes on.
#[test]
fn one_of_two_devices_fails() {
    let settings =
        [("FAKE_CUDA_LAUNCHES", "60,-1"), ("FAKE_CUDA_LAUNCHES", "-1,60"), ("FAKE_CUDA_MEMORY", "1000000,1000000000")];
    with_driver("one_of_two_devices_fails", &settings, || {
        let cards = [0, 1].map(|number| Card::open(number).unwrap());
        let engine = load_on(&trained(), devices(&cards), split(&[3, 2]));
        let told = engine.take_recoveries().unwrap();
        if std::env::var_os("FAKE_CUDA_MEMORY").is_some() {
            // Nothing has room on the first one.
            let [told] = told[..] else { panic!("{told:?}") };
            assert_eq!((told.cause, told.accelerator), (RecoveryCause::OutOfMemory, 0));
            assert_eq!((told.layers_shifted, told.layers_moved), (3, 0));
            assert_eq!(engine.placement().placed.shares(), split(&[0, 5]));
            return assert!(!logits(&engine).is_empty());
        }
        assert!(told.is_empty());
        let lost = usize::from(std::env::var("FAKE_CUDA_LAUNCHES").unwrap().starts_with('-'));
        let prompt: Vec<u32> = (0..21).map(|i| (i * 37 + 11) % 300 + 3).collect();
        // No token comes from what a GPU sent that had failed.
        let expected = greedy(&load_on(&trained(), Vec::new(), 0), &prompt, 12);
        assert_eq!(greedy(&engine, &prompt, 12), expected);
        let placement = engine.placement();
        assert_eq!(placement.accelerators.iter().map(|held| held.layers).collect::<Vec<_>>(), [[0, 2], [3, 0]][lost]);
        assert_eq!([cards[0].lost().is_some(), cards[1].lost().is_some()], [lost == 0, lost == 1]);
        assert!(!logits(&engine).is_empty());
    });
}
