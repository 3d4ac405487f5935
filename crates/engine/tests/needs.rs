//! What layers say they need is what their operations need, and layers that an accelerator cannot compute stay on the host.

#![allow(clippy::unwrap_used)] // a test

mod common;

use backend::{BackendError, BufferId, Device, DeviceKind, HostBytes, MemoryUse, Need, Op};
use backend_cpu::{CpuDevice, Precision, TestDevice, ThreadPool};
use common::{config, file, greedy, options, prompt};
use engine::{Cancel, Devices, Engine, LoadOptions};
use model::{Lack, LayoutParams, Offload, Placement};
use quant::GgmlType;
use std::sync::{Arc, Mutex};
use test_models::ModelSpec;

/// A test device that keeps what is needed of it and cannot multiply some types.
struct Picky {
    device: TestDevice,
    lacks: fn(&Need) -> bool,
    needed: Arc<Mutex<Vec<Need>>>,
}

impl Device for Picky {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn kind(&self) -> DeviceKind {
        self.device.kind()
    }

    fn memory(&self) -> MemoryUse {
        self.device.memory()
    }

    fn scratch(&self, need: &Need) -> Option<u64> {
        if (self.lacks)(need) { None } else { self.device.scratch(need) }
    }

    fn pressure(&mut self) -> u64 {
        self.device.pressure()
    }

    fn adopt(&mut self, bytes: HostBytes) -> Result<BufferId, BackendError> {
        self.device.adopt(bytes)
    }

    fn allocate(&mut self, bytes: u64) -> Result<BufferId, BackendError> {
        self.device.allocate(bytes)
    }

    fn free(&mut self, buffer: BufferId) {
        self.device.free(buffer);
    }

    fn write(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.device.write(buffer, offset, bytes)
    }

    fn read(&mut self, buffer: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.device.read(buffer, offset, bytes)
    }

    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        let needs = op.needs();
        assert!(!needs.iter().any(|need| (self.lacks)(need)), "{} was asked for {needs:?}", op.name());
        self.needed.lock().unwrap().extend(needs);
        self.device.run(op)
    }
}

fn load(spec: &ModelSpec, options: LoadOptions, lacks: fn(&Need) -> bool) -> (Engine, Arc<Mutex<Vec<Need>>>) {
    let file = file(spec);
    let (pool, config) = (Arc::new(ThreadPool::new(2)), config(Precision::Exact));
    let needed: Arc<Mutex<Vec<Need>>> = Arc::default();
    let (device, _) = TestDevice::new(pool.clone(), config, 1 << 30);
    let accelerator: Box<dyn Device> = Box::new(Picky { device, lacks, needed: needed.clone() });
    let devices = Devices { host: Box::new(CpuDevice::new(pool, config)), accelerators: vec![Some(accelerator)] };
    (Engine::load(&file, options, devices, &mut |_| {}, &Cancel::new()).unwrap(), needed)
}

/// Whether what was said beforehand is what came, or more of it.
fn covers(said: &Need, came: &Need) -> bool {
    match (*said, *came) {
        (Need::MatMul { ty, n, cols }, Need::MatMul { ty: ty_came, n: n_came, cols: cols_came }) => {
            (ty, cols) == (ty_came, cols_came) && n_came <= n
        }
        (Need::ExpertMatMul { ty, inputs, slots, cols }, Need::ExpertMatMul { .. }) => {
            let Need::ExpertMatMul { ty: ty_came, inputs: inputs_came, slots: slots_came, cols: cols_came } = *came
            else {
                return false;
            };
            (ty, cols) == (ty_came, cols_came) && inputs_came <= inputs && slots_came <= slots
        }
        (Need::Attention { n, cells, .. }, Need::Attention { n: n_came, cells: cells_came, .. }) => {
            let Need::Attention { k_type, v_type, head_count, head_count_kv, head_dim_k, head_dim_v, .. } = *came
            else {
                return false;
            };
            let same = Need::Attention { k_type, v_type, head_count, head_count_kv, head_dim_k, head_dim_v, n, cells };
            same == *said && n_came <= n && cells_came <= cells
        }
        _ => said == came,
    }
}

#[test]
fn layers_say_beforehand_what_their_operations_need() {
    let plain = [ModelSpec::llama3(), ModelSpec::mixtral(), ModelSpec::qwen3(), ModelSpec::qwen3moe()];
    for spec in ModelSpec::every_kind().into_iter().chain(plain) {
        let (engine, needed) = load(&spec, options(96, 99), |_| false);
        greedy(&engine, &prompt(40), 4);
        let (model, params) = (engine.model(), &engine.layout().params);
        let layers = model.layers.iter().flat_map(|layer| layer.needs(params, true));
        let said: Vec<Need> = layers.chain(model.output.needs(params)).collect();
        let came = needed.lock().unwrap();
        assert!(!came.is_empty());
        for came in came.iter() {
            assert!(said.iter().any(|said| covers(said, came)), "{}: {came:?} is not in {said:?}", model.architecture);
        }
        // And nothing is said that never comes.
        for said in &said {
            assert!(came.iter().any(|came| covers(said, came)), "{}: {said:?} never came", model.architecture);
        }
    }
}

#[test]
fn layers_that_the_accelerator_cannot_compute_stay_on_the_host() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::llama3() };
    let whole = load(&spec, options(96, 0), |_| false).0;
    let expected = greedy(&whole, &prompt(20), 8).0.ids;
    let vocab = |need: &Need| matches!(need, Need::MatMul { n: 1, .. });
    // Only the output layer computes one row at once: it stays, and nothing is asked for that is lacking.
    let (engine, needed) = load(&spec, options(96, 99), vocab);
    assert_eq!(engine.placement().gpu_layers, 4);
    assert!(engine.take_recoveries().unwrap().is_empty(), "nothing was short of memory");
    assert_eq!(engine.set_gpu_layers(99).unwrap().gpu_layers, 4);
    needed.lock().unwrap().clear();
    let (engine, _) = load(&spec, options(96, 99), |need| matches!(need, Need::Attention { .. }));
    assert_eq!(engine.set_gpu_layers(5).unwrap().gpu_layers, 0);
    assert_eq!(greedy(&engine, &prompt(20), 8).0.ids, expected);
}

/// A type that only experts have, or a kernel that is missing: the rest of the layers can go without them.
#[test]
fn experts_that_the_accelerator_cannot_compute_stay_on_the_host() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    let experts = |need: &Need| matches!(need, Need::ExpertMatMul { .. });
    let expected = greedy(&load(&spec, options(96, 0), |_| false).0, &prompt(20), 8).0.ids;
    let (engine, _) = load(&spec, options(96, 99), experts);
    assert_eq!(engine.placement().gpu_layers, 0);
    let placement = engine.place(99, 99).unwrap();
    assert_eq!((placement.gpu_layers, placement.experts_apart), (5, 4));
    assert_eq!(greedy(&engine, &prompt(20), 8).0.ids, expected);
    let (engine, needed) = load(&spec, LoadOptions { cpu_moe: 99, ..options(96, 99) }, experts);
    assert_eq!(engine.placement().gpu_layers, 5);
    assert_eq!(greedy(&engine, &prompt(20), 8).0.ids, expected);
    // What is said of layers without their experts is what comes.
    let (model, params) = (engine.model(), &engine.layout().params);
    let layers = model.layers.iter().flat_map(|layer| layer.needs(params, false));
    let said: Vec<Need> = layers.chain(model.output.needs(params)).collect();
    let came = needed.lock().unwrap();
    assert!(came.iter().all(|came| said.iter().any(|said| covers(said, came))));
    assert!(said.iter().all(|said| came.iter().any(|came| covers(said, came))));
    // Three layers whole cannot go; layers before the third without experts, and so none after.
    drop(came);
    assert_eq!(engine.place(99, 2).unwrap().gpu_layers, 0);
}

#[test]
fn the_first_layer_that_is_lacking_ends_the_row() {
    let spec = ModelSpec { n_layer: 6, ..ModelSpec::gemma2() };
    let model = model::describe(&gguf::Gguf::parse(&spec.header().0, spec.header().1).unwrap()).unwrap();
    let params =
        LayoutParams { context: 4096, ubatch: 8, kv_type_k: GgmlType::F16, kv_type_v: GgmlType::F16, logits_rows: 1 };
    let wide = |need: &Need| match need {
        Need::Attention { cells: 4096, .. } => None,
        Need::Attention { .. } => Some(100),
        Need::MatMul { n, .. } => Some(*n as u64),
        _ => Some(0),
    };
    let offload = Offload::new(&model, &params, &wide);
    let full = model.layers.iter().rposition(|layer| layer.attention().is_some_and(|a| a.window == 0)).unwrap();
    let lack = offload.lack(0).unwrap();
    assert!(matches!(lack, Lack { layer, need: Need::Attention { cells: 4096, .. } } if layer == full), "{lack:?}");
    assert_eq!(offload.layers(0), 5 - full);
    let (place, there) = (|layers| Placement::new(layers, 6), model::Place::Accelerator(0));
    assert_eq!(offload.scratch(&place(0), there), 0);
    if offload.layers(0) > 0 {
        assert_eq!((offload.scratch(&place(1), there), offload.scratch(&place(99), there)), (108, 108));
    }
    let all = Offload::new(&model, &params, &|_| Some(1));
    assert_eq!((all.layers(0), all.lack(0), all.scratch(&place(7), there)), (7, None, 2));
}
