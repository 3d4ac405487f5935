//! The binding of the driver, against a libcuda.so.1 over the emulator. The library must be there before a program looks for
//! it, so every test starts itself again, in a process with the library in the linker's path.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // a test

mod common;

use backend::{BackendError, Device, Linear, Op, View, Weight};
use backend_cpu::ThreadPool;
use backend_cuda::{Absent, Card, CudaDevice, GpuConfig, GpuDevice};
use common::driver::{State, TestDriver};
use common::fake::{capabilities, counts, cuda, greedy, host, load, logits, of_the_same_age, with_driver};
use common::library;
use common::random::Random;
use engine::{Cancel, Devices, Engine, LoadOptions, RecoveryCause};
use quant::GgmlType;
use std::sync::{Arc, Mutex};
use test_models::ModelSpec;

#[test]
fn without_a_driver_there_is_a_reason() {
    // On a machine with a GPU this opens it, which is just as well.
    if let Err(reason) = Card::open(0) {
        assert!(matches!(reason, Absent::NoDriver | Absent::NoDevice | Absent::BadState(_)), "{reason:?}");
    }
}

#[test]
fn no_device() {
    with_driver("no_device", &[("FAKE_CUDA_DEVICES", "0")], || {
        assert_eq!(Card::open(0).err(), Some(Absent::NoDevice));
    });
}

#[test]
fn an_old_driver() {
    with_driver("an_old_driver", &[("FAKE_CUDA_VERSION", "11080")], || {
        assert_eq!(Card::open(0).err(), Some(Absent::DriverTooOld { found: 11080, needed: 12000 }));
    });
}

#[test]
fn an_old_device() {
    with_driver("an_old_device", &[("FAKE_CUDA_CAPABILITY", "60")], || {
        assert_eq!(Card::open(0).err(), Some(Absent::DeviceTooOld { capability: (6, 0), needed: (6, 1) }));
    });
}

/// For every architecture that there is PTX of: the bits of the emulator, without the driver's interface between.
#[test]
fn a_model_through_the_driver() {
    with_driver("a_model_through_the_driver", &capabilities(&["61", "75", "86", "120"]), || {
        let (driver, _) = TestDriver::new(of_the_same_age());
        let expected = logits(&load(Box::new(GpuDevice::new(driver, GpuConfig::default())), 99));
        let engine = load(cuda(), 99);
        assert_eq!(logits(&engine), expected);
        // Away and back, from another thread.
        std::thread::scope(|scope| {
            scope.spawn(|| [0, 2, 99].map(|layers| engine.set_gpu_layers(layers).unwrap()));
        });
        assert_eq!(logits(&engine), expected);
        let placement = engine.placement();
        assert_eq!(placement.gpu_layers, placement.layers);
        assert_eq!(placement.accelerator_used(), placement.accelerator_planned());
    });
}

/// Long prompts with layers on the host: copies beside the work, done by the driver as late as it may. The bits of the emulator,
/// whose copies are done at once.
#[test]
fn streamed_prompts() {
    with_driver("streamed_prompts", &capabilities(&["61", "86"]), || {
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        std::fs::write(file.path(), ModelSpec { n_layer: 6, ..ModelSpec::llama3() }.build()).unwrap();
        let rates = model::StreamRates { host: 1.0, accelerator: 1e15, upload: 1e15 };
        let load = |accelerator: Box<dyn Device>| {
            let options = LoadOptions {
                context: 300,
                ubatch: 16,
                gpu_layers: 2.into(),
                streaming: Some(rates),
                ..LoadOptions::default()
            };
            let devices = Devices { host: host(), accelerators: vec![Some(accelerator)] };
            Engine::load(file.path(), options, devices, &mut |_| {}, &Cancel::new()).unwrap()
        };
        let (driver, _) = TestDriver::new(of_the_same_age());
        let (emulated, driven) = (load(Box::new(GpuDevice::new(driver, GpuConfig::default()))), load(cuda()));
        let tokens: Vec<u32> = (0..70).map(|i| (i * 37 + 11) % 300 + 3).collect();
        let [one, other] = [&emulated, &driven].map(|engine| {
            let ids = greedy(engine, &tokens, 6);
            let mut saved = Vec::new();
            engine.save(&mut saved).unwrap();
            assert!(engine.placement().streamed > 0);
            (ids, saved)
        });
        assert!(one == other, "the same tokens, and in the caches the same bits");
    });
}

/// Whoever copies into pinned memory can be chosen: it gets every byte, once, in pieces, and all of them arrive.
#[test]
fn copies_into_pinned_memory_are_shared() {
    with_driver("copies_into_pinned_memory_are_shared", &[("FAKE_CUDA_DEVICES", "1")], || {
        let (pool, copied) = (ThreadPool::new(3), Arc::new(Mutex::new((0u64, 0u64))));
        let told = copied.clone();
        let copier = move |to: &mut [u8], from: &[u8]| {
            let mut told = told.lock().unwrap();
            *told = (told.0 + from.len() as u64, told.1 + 1);
            pool.copy(to, from);
        };
        let driver = Card::open(0).unwrap().driver().unwrap().with_copier(Arc::new(copier));
        let mut device = GpuDevice::new(driver, GpuConfig::default());
        let (mut all, mut pieces) = (0, 0);
        for len in [1, 4095, 4 << 20, (41 << 20) + 13] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + i / 255) as u8).collect();
            let [adopted, written] = [device.adopt(Arc::new(bytes.clone())), device.allocate(len as u64)];
            let (adopted, written) = (adopted.unwrap(), written.unwrap());
            device.turn().unwrap();
            device.write_beside(written, 0, &bytes).unwrap();
            device.turn().unwrap();
            for buffer in [adopted, written] {
                let mut read = vec![0; len];
                device.read(buffer, 0, &mut read).unwrap();
                assert!(read == bytes, "{len}");
            }
            all += 2 * len as u64;
            pieces += 2 * len.div_ceil(4 << 20) as u64;
        }
        assert_eq!(*copied.lock().unwrap(), (all, pieces));
    });
}

/// Every token is like the one before: nearly all of it goes as graphs, with the same bits; also across the place where
/// attention begins to be split. Where there is no memory for graphs, all goes as well.
#[test]
fn tokens_are_replayed() {
    let settings = [("FAKE_CUDA_GRAPHS", "1"), ("FAKE_CUDA_GRAPHS", "0")];
    with_driver("tokens_are_replayed", &settings, || {
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        std::fs::write(file.path(), ModelSpec { n_layer: 6, ..ModelSpec::llama3() }.build()).unwrap();
        let counted = tempfile::NamedTempFile::new().unwrap();
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe {
            std::env::set_var("FAKE_CUDA_COUNTS", counted.path());
            std::env::set_var("FAKE_CUDA_GRAPH", "100000");
        }
        let load = |accelerator: Box<dyn Device>| {
            let kv = GgmlType::F32;
            let options = LoadOptions {
                context: 300,
                gpu_layers: 99.into(),
                kv_type_k: kv,
                kv_type_v: kv,
                ..LoadOptions::default()
            };
            let devices = Devices { host: host(), accelerators: vec![Some(accelerator)] };
            Engine::load(file.path(), options, devices, &mut |_| {}, &Cancel::new()).unwrap()
        };
        let (driver, state) = TestDriver::new(State::default());
        let card = Card::open(0).unwrap();
        let cuda = GpuDevice::new(card.driver().unwrap(), GpuConfig::default());
        let (emulated, driven) = (load(Box::new(GpuDevice::new(driver, GpuConfig::default()))), load(Box::new(cuda)));
        let mut tokens: Vec<u32> = (0..235).map(|i| (i * 37 + 11) % 300 + 3).collect();
        // The same tokens, and in the caches the same bits.
        let mut go_on = |count: u32| {
            let [one, other] = [&emulated, &driven].map(|engine| {
                let mut saved = Vec::new();
                let ids = greedy(engine, &tokens, count);
                engine.save(&mut saved).unwrap();
                (ids, saved)
            });
            assert!(one.0.len() == count as usize && one == other, "after {} tokens", tokens.len());
            tokens.extend(one.0);
        };
        go_on(5);
        let (before, all_before) = (counts(counted.path()), state.lock().unwrap().launches);
        go_on(10);
        let (after, all) = (counts(counted.path()), state.lock().unwrap().launches - all_before);
        let [launched, made, changed, graphs]: [u64; 4] = std::array::from_fn(|i| after[i] - before[i]);
        println!(
            "10 tokens: {all} kernels, {launched} one by one, {graphs} graphs, {made} new, {changed} nodes changed"
        );
        if std::env::var("FAKE_CUDA_GRAPHS").unwrap() == "0" {
            assert_eq!((launched, made, graphs), (all, 0, 0));
        } else {
            assert!(made == 0 && graphs <= 30 && launched <= 60, "{after:?} after {before:?}");
            // Of a layer only what knows the position.
            assert!(changed <= 10 * 6 * 2, "{changed} nodes changed");
        }
        // What is not free is what is counted.
        let gone = card.total_bytes() - card.free_bytes().unwrap() - card.taken_bytes();
        assert_eq!(card.graph_bytes(), gone);
        assert_eq!(card.graph_bytes(), 100_000 * after[1]);
        // Attention begins to be split at 256.
        go_on(20);
        // Layers that move change the addresses of nearly everything.
        for layers in [2, 99] {
            for engine in [&driven, &emulated] {
                engine.set_gpu_layers(layers).unwrap();
            }
            go_on(5);
        }
        drop(driven);
        assert_eq!((card.graph_bytes(), card.free_bytes().unwrap()), (0, card.total_bytes()));
    });
}

#[test]
fn memory_ends() {
    with_driver("memory_ends", &[("FAKE_CUDA_MEMORY", "4000000")], || {
        let engine = load(cuda(), 99);
        let placement = engine.placement();
        assert!(placement.gpu_layers < placement.layers, "{placement:?}");
        let recoveries = engine.take_recoveries().unwrap();
        assert!(recoveries.iter().any(|recovery| recovery.cause == RecoveryCause::OutOfMemory), "{recoveries:?}");
        assert!(!logits(&engine).is_empty());
    });
}

#[test]
fn the_gpu_is_lost() {
    let launches = ["0", "1", "50", "100"].map(|launches| ("FAKE_CUDA_LAUNCHES", launches));
    with_driver("the_gpu_is_lost", &launches, || {
        let expected = logits(&load(cuda(), 0));
        let engine = load(cuda(), 99);
        // Somewhere in here; the second run is the host's from its beginning.
        logits(&engine);
        assert_eq!(engine.placement().gpu_layers, 0);
        assert_eq!(logits(&engine), expected);
    });
}

/// Every kernel that products may ask for is in the PTX, with an argument of the size that is given.
#[test]
fn every_type_has_its_kernels() {
    with_driver("every_type_has_its_kernels", &[("FAKE_CUDA_DEVICES", "1")], || {
        let mut device = cuda();
        let (mut random, rows, cols) = (Random(1), 5, 256);
        let input = View::new(device.allocate(9 * cols as u64 * 4).unwrap());
        let out = View::new(device.allocate(9 * rows as u64 * 4).unwrap());
        let mut types = 0;
        for ty in GgmlType::all().filter(|ty| cols % ty.block_size() == 0) {
            let bytes = random.weights(ty, rows * cols);
            let buffer = device.adopt(Arc::new(bytes)).unwrap();
            let weight = Weight { buffer, offset: 0, ty, rows, cols };
            for n in [1, 3, 9] {
                let products = [Linear { weight, bias: None, scale: 1.0, out }];
                match device.run(&Op::MatMul { input, n, products: &products }) {
                    Ok(()) => types += 1,
                    Err(error) => assert!(matches!(error, BackendError::Unsupported { .. }), "{ty}: {error}"),
                }
            }
            device.free(buffer);
        }
        assert_eq!(types, 3 * 28);
    });
}

#[test]
fn a_card_says_what_it_is_and_what_is_taken() {
    with_driver("a_card_says_what_it_is_and_what_is_taken", &[("FAKE_CUDA_CAPABILITY", "86")], || {
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe { std::env::set_var("FAKE_CUDA_MODULE", "1000000") };
        let card = Card::open(0).unwrap();
        assert_eq!((card.name(), card.capability(), card.cuda_version()), ("Fake GPU", (8, 6), 12000));
        assert_eq!((card.total_bytes(), card.free_bytes()), (8 << 30, Some(8 << 30)));
        assert_eq!(card.bandwidth(), Some(2.0 * 7.501e9 * 192.0 / 8.0));
        assert_eq!((card.code_bytes(), card.taken_bytes()), (None, 0));
        let mut device = GpuDevice::new(card.driver().unwrap(), GpuConfig::default());
        // All modules, once.
        let code = 1_000_000 * library::modules().len() as u64;
        assert_eq!(card.code_bytes(), Some(code));
        drop(card.driver().unwrap());
        assert_eq!(card.free_bytes(), Some((8 << 30) - code));
        let buffer = device.allocate(1000).unwrap();
        assert_eq!((card.taken_bytes(), device.reserved()), (16 << 20, 16 << 20));
        assert_eq!(card.free_bytes(), Some((8 << 30) - code - (16 << 20)));
        device.free(buffer);
        assert_eq!(card.taken_bytes(), 0);
        device.allocate(1000).unwrap();
        drop(device);
        assert_eq!((card.taken_bytes(), card.free_bytes()), (0, Some((8 << 30) - code)));
    });
}

/// What others had not long ago is left to them, by whoever comes without having been planned; what is ours is not theirs.
/// One of two who want the kernels compiled waits for the other, so that all of their code is counted, once.
#[test]
fn kernels_are_compiled_once() {
    with_driver("kernels_are_compiled_once", &[("FAKE_CUDA_COMPILE", "20")], || {
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe { std::env::set_var("FAKE_CUDA_MODULE", "1000000") };
        let card = Card::open(0).unwrap();
        let modules = card.compiled().1;
        std::thread::scope(|scope| {
            scope.spawn(|| card.compile().unwrap());
            while card.compiled().0 == 0 {
                std::thread::yield_now();
            }
            card.compile().unwrap();
            assert_eq!(card.compiled(), (modules, modules));
        });
        assert_eq!(card.code_bytes(), Some(1_000_000 * modules as u64));
    });
}

#[test]
fn what_others_had_is_left_to_them() {
    with_driver("what_others_had_is_left_to_them", &[("FAKE_CUDA_MODULE", "1000000")], || {
        let others = tempfile::NamedTempFile::new().unwrap();
        let have = |bytes: u64| std::fs::write(others.path(), bytes.to_string()).unwrap();
        have(0);
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe { std::env::set_var("FAKE_CUDA_OTHERS", others.path()) };
        let card = Card::open(0).unwrap();
        assert_eq!(card.margin(), 256 << 20);
        let mut device = GpuDevice::new(card.driver().unwrap(), GpuConfig::default());
        let spare = |device: &mut CudaDevice, margin: u64| {
            assert_eq!(card.margin(), margin << 20);
            // A slab, and graphs that are still to come.
            let left = card.free_bytes().unwrap() - ((margin + 16 + 16) << 20);
            assert_eq!(device.spare(), left);
            left
        };
        let all = spare(&mut device, 256);
        let ours = device.allocate(1 << 30).unwrap();
        assert_eq!(all - spare(&mut device, 256), 1 << 30);
        device.free(ours);
        assert_eq!(spare(&mut device, 256), all);
        device.allocate(1 << 30).unwrap();
        have(1 << 30);
        assert_eq!(all - spare(&mut device, 256), 2 << 30);
        // A sixteenth of the memory at most.
        have(0);
        assert_eq!(all - spare(&mut device, 256 + 512), 3 << 29);
        have(8 << 30);
        assert_eq!(device.spare(), 0);
        let limit = GpuConfig { limit: Some(1000), ..GpuConfig::default() };
        have(0);
        assert_eq!(GpuDevice::new(card.driver().unwrap(), limit).spare(), 1000);
    });
}

/// After a loss the context is reset, and the GPU can be opened again; or it stays lost, and that is said.
/// Memory that comes and goes on one thread, while another one asks what others may want.
#[test]
fn our_own_memory_never_passes_for_that_of_others() {
    const NAME: &str = "our_own_memory_never_passes_for_that_of_others";
    with_driver(NAME, &[("FAKE_CUDA_MEMORY", "2147483648")], || {
        let card = Card::open(0).unwrap();
        let mut device = CudaDevice::new(card.driver().unwrap(), GpuConfig::default());
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let mut count = 0;
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(card.margin(), 256 << 20);
                    count += 1;
                }
                count
            });
            for _ in 0..300 {
                let buffer = device.allocate(32 << 20).unwrap();
                device.free(buffer);
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(asked.join().unwrap() > 0);
        });
    });
}

#[test]
fn a_lost_gpu_is_opened_again() {
    let settings = [("FAKE_CUDA_RESETS", "1"), ("FAKE_CUDA_RESETS", "0")];
    with_driver("a_lost_gpu_is_opened_again", &settings, || {
        // SAFETY: a process with one test, which has started no other threads yet.
        unsafe { std::env::set_var("FAKE_CUDA_LAUNCHES", "3") };
        let card = Card::open(0).unwrap();
        let mut device = GpuDevice::new(card.driver().unwrap(), GpuConfig::default());
        let x = View::new(device.allocate(4).unwrap());
        let scale = Op::Scale { x, factor: 2.0, len: 1 };
        // Whether a kernel failed is known when its result is asked for.
        let go = |device: &mut CudaDevice| device.run(&scale).and_then(|()| device.read(x.buffer, 0, &mut [0; 4]));
        (0..3).for_each(|_| go(&mut device).unwrap());
        assert_eq!(card.lost(), None);
        assert!(matches!(go(&mut device), Err(BackendError::Lost { .. })));
        assert!(card.lost().unwrap().contains("CUDA_ERROR_LAUNCH_FAILED"));
        assert!(card.free_bytes().is_none() && matches!(card.driver(), Err(Absent::BadState(_))));
        drop((device, card));
        let again = Card::open(0);
        if std::env::var("FAKE_CUDA_RESETS").unwrap() == "0" {
            assert!(matches!(again, Err(Absent::BadState(_))));
            return;
        }
        let card = again.unwrap();
        let mut device = GpuDevice::new(card.driver().unwrap(), GpuConfig::default());
        let x = View::new(device.allocate(4).unwrap());
        device.run(&Op::Scale { x, factor: 2.0, len: 1 }).unwrap();
        assert_eq!(card.lost(), None);
    });
}

/// Any other library of that name is no driver, and no reason to end.
#[test]
fn a_library_that_is_no_driver() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::os::unix::fs::symlink(library::module("norm", None, library::NEWEST), folder.path().join(name)).unwrap();
    }
    let path = folder.path().to_str().unwrap().to_owned();
    with_driver("a_library_that_is_no_driver", &[("LD_LIBRARY_PATH", &path)], || {
        assert!(matches!(Card::open(0), Err(Absent::BadState(_))));
    });
}
