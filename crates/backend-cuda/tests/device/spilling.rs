//! A system that moves video memory to RAM instead of refusing it: layers stop at what it grants, and leave where it moved
//! something all the same.

use crate::common::driver::{State, TestDriver, Windows};
use crate::engine::{fixture, generate, load, prompt, tiny};
use backend::{BackendError, Device};
use backend_cuda::{GpuConfig, GpuDevice};
use engine::RecoveryCause;
use std::time::Duration;
use test_models::ModelSpec;

const MIB: u64 = 1 << 20;

fn windows(budget: u64, holds: u64) -> State {
    State { windows: Some(Windows { budget, holds }), ..State::default() }
}

#[test]
fn growing_stops_at_what_is_granted() {
    let (driver, state) = TestDriver::new(windows(100 * MIB, 1 << 40));
    let mut device = GpuDevice::new(driver, GpuConfig::default());
    let first = device.allocate(60 * MIB).unwrap();
    assert!(matches!(device.allocate(50 * MIB), Err(BackendError::OutOfMemory { .. })));
    assert_eq!(state.lock().unwrap().used, 60 * MIB, "nothing was tried");
    device.allocate(40 * MIB).unwrap();
    // Others go: more is granted.
    state.lock().unwrap().windows = Some(Windows { budget: 200 * MIB, holds: 1 << 40 });
    device.allocate(50 * MIB).unwrap();
    device.free(first);
    assert_eq!(state.lock().unwrap().used, 90 * MIB);
}

#[test]
fn an_allocation_that_went_to_ram_is_given_back_and_counts_as_refused() {
    let (driver, state) = TestDriver::new(windows(1 << 40, 100 * MIB));
    let mut device = GpuDevice::new(driver, GpuConfig::default());
    device.allocate(60 * MIB).unwrap();
    // Granted, and yet 20 of 60 MiB go to RAM: less than half may be something else, and presses.
    device.allocate(60 * MIB).unwrap();
    assert_eq!(device.pressure(), 20 * MIB);
    assert!(matches!(device.allocate(10 * MIB), Err(BackendError::OutOfMemory { .. })));
    assert_eq!(state.lock().unwrap().used, 120 * MIB);
}

#[test]
fn a_model_takes_what_is_granted_and_no_more() {
    let path = fixture("rustdoc-tiny-Q4_K_M.gguf");
    for state in [windows(3 * MIB, 1 << 40), windows(1 << 40, 2 * MIB)] {
        let (engine, state) = load(&path, 99, state);
        let placement = engine.placement();
        assert!(placement.gpu_layers < placement.layers, "{placement:?}");
        let recoveries = engine.take_recoveries().unwrap();
        assert!(recoveries.iter().any(|recovery| recovery.cause == RecoveryCause::OutOfMemory), "{recoveries:?}");
        assert!(state.lock().unwrap().used <= 3 * MIB);
        assert_eq!(generate(&engine, &prompt(20), 4, &mut |_| {}).0.len(), 4);
    }
}

/// In a running answer: the system grants less, or moves something to RAM. Layers leave, and a recovery says so, once.
#[test]
fn layers_leave_when_memory_has_spilled() {
    let spec = ModelSpec { n_embd: 512, n_ff: 1536, n_layer: 4, ..ModelSpec::llama3() };
    let file = tiny(&spec);
    let wide = Windows { budget: 1 << 40, holds: 1 << 40 };
    let plenty = || State { windows: Some(wide), exact: true, ..State::default() };
    for spilled in [false, true] {
        let (engine, state) = load(file.path(), 99, plenty());
        let layers = engine.placement().gpu_layers;
        let mut less = 0;
        let (ids, recoveries) = generate(&engine, &prompt(3), 5, &mut |tokens| {
            if tokens == 2 {
                let mut state = state.lock().unwrap();
                less = state.used - 20 * MIB;
                state.windows = Some(match spilled {
                    true => Windows { holds: less, ..wide },
                    false => Windows { budget: less, ..wide },
                });
                drop(state);
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        assert_eq!(ids.len(), 5);
        let [recovery] = recoveries[..] else { panic!("spilled {spilled}: {recoveries:?}") };
        assert_eq!(recovery.cause, RecoveryCause::OutOfMemory);
        assert!(recovery.layers_moved > 0 && recovery.gpu_layers < layers, "{recovery:?}");
        let used = state.lock().unwrap().used;
        assert!(used <= less, "spilled {spilled}: {used}, {less}, {recovery:?}");
        // Where others are granted what was ours, some is left free besides.
        assert!(!spilled || recovery.gpu_layers > 0, "no more than that: {recovery:?}");
    }
}
