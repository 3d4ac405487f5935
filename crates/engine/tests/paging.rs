//! Models larger than RAM: the same tokens as ever, within the bytes counted.

mod common;

use common::{greedy, load, options, prompt};
use engine::{Engine, LoadOptions};
use quant::GgmlType;
use test_models::ModelSpec;

fn families() -> Vec<ModelSpec> {
    let mut all = vec![
        ModelSpec { n_layer: 6, ..ModelSpec::quantized(GgmlType::Q4_K) },
        ModelSpec { n_layer: 5, ..ModelSpec::qwen3moe() },
    ];
    all.extend(ModelSpec::every_kind());
    all
}

/// With RAM for this share of the weights on the host.
fn with_ram(engine: &Engine, gpu_layers: usize, percent: u64) -> Option<u64> {
    let host = engine.layout().totals(gpu_layers).host;
    Some(host.kv + host.compute + host.weights / 100 * percent)
}

#[test]
fn tokens_do_not_depend_on_what_fits_into_ram() {
    let (mut direct, mut guessed) = (0, 0);
    for spec in families() {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        assert_eq!(engine.placement().paged, None);
        let expected = greedy(&engine, &prompt(40), 12).0.ids;
        for percent in [0, 20, 60, 90] {
            let options = LoadOptions { host_ram: with_ram(&engine, 0, percent), ..options(128, 0) };
            let (paged, _) = load(&spec, options, None).unwrap();
            assert_eq!(greedy(&paged, &prompt(40), 12).0.ids, expected, "{} with {percent} %", spec.arch);
            let told = paged.placement().paged.unwrap();
            assert!(told.read > 0 && told.held <= told.most_held, "{told:?}");
            direct += told.direct;
            guessed += told.guessed;
        }
        let enough = LoadOptions { host_ram: with_ram(&engine, 0, 101), ..options(128, 0) };
        let (whole, _) = load(&spec, enough, None).unwrap();
        assert_eq!(greedy(&whole, &prompt(40), 12).0.ids, expected);
        assert_eq!(whole.placement().paged, None, "what fits is left alone");
    }
    // With what reads past the system's cache, where the temporary folder can, and with guesses.
    assert!(guessed > 0 && (direct > 0 || !reads_directly()));
}

/// Whether files in the temporary folder can be read past the system's cache.
fn reads_directly() -> bool {
    let file = common::file(&ModelSpec::llama());
    let model = weights::ModelFile::open(&file, weights::Access::Map).expect("a model");
    let loader = weights::Loader::new(0).expect("threads");
    loader.load(&model.tensor_bytes(0).expect("a tensor")).is_some()
}

#[test]
fn no_more_is_in_memory_than_was_planned() {
    for spec in families().into_iter().take(2) {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let options = LoadOptions { host_ram: with_ram(&engine, 0, 70), ..options(128, 0) };
        let (paged, _) = load(&spec, options, None).unwrap();
        let mut read = 0;
        for round in 0..3 {
            greedy(&paged, &prompt(1 + round), 6);
            let told = paged.placement().paged.unwrap();
            assert!(told.most_held <= told.budget, "{} {told:?}", spec.arch);
            assert!(told.most_held > told.budget / 2, "the memory is used: {} {told:?}", spec.arch);
            assert!(told.read > read, "{} {told:?}", spec.arch);
            read = told.read;
        }
    }
}

#[test]
fn layers_that_move_change_what_stays() {
    for spec in [ModelSpec { n_layer: 6, ..ModelSpec::quantized(GgmlType::Q4_K) }, ModelSpec::mixtral()] {
        let (engine, _) = load(&spec, options(128, 0), None).unwrap();
        let expected = greedy(&engine, &prompt(40), 8).0.ids;
        let options = LoadOptions { host_ram: with_ram(&engine, 0, 60), ..options(128, 0) };
        let (paged, _) = load(&spec, options, Some(1 << 30)).unwrap();
        let all = paged.placement().layers;
        for layers in [0, 1, all, 0] {
            paged.set_gpu_layers(layers).unwrap();
            // The same prompt again: everything but its last token is there already.
            assert_eq!(greedy(&paged, &prompt(40), 8).0.ids, expected, "{} with {layers}", spec.arch);
            let placement = paged.placement();
            assert_eq!(placement.paged.is_none(), layers == all, "{} with {layers}: {placement:?}", spec.arch);
        }
    }
}

#[test]
fn memory_of_our_own_is_not_paged() {
    let spec = ModelSpec::llama();
    let (engine, _) = load(&spec, options(128, 0), None).unwrap();
    let options = LoadOptions { host_ram: with_ram(&engine, 0, 50), mmap: false, ..options(128, 0) };
    let (read, _) = load(&spec, options, None).unwrap();
    assert_eq!(greedy(&read, &prompt(9), 5).0.ids, greedy(&engine, &prompt(9), 5).0.ids);
    assert_eq!(read.placement().paged, None);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_cut_short_while_it_is_read_again_and_again_is_an_error() {
    use engine::{Cancel, EngineError};
    use std::sync::Arc;
    let spec = ModelSpec { n_layer: 6, ..ModelSpec::quantized(GgmlType::Q4_K) };
    let file = common::file(&spec);
    let pool = Arc::new(backend_cpu::ThreadPool::new(2));
    let host = Box::new(backend_cpu::CpuDevice::new(pool, common::config(backend_cpu::Precision::Fast)));
    let devices = engine::Devices { host, accelerators: Vec::new() };
    let options = LoadOptions { host_ram: Some(0), ..options(64, 0) };
    let engine = Engine::load(&file, options, devices, &mut |_| {}, &Cancel::new()).unwrap();
    let mut tokens = 0;
    let result = engine.generate(common::request(&prompt(5), 6), &Cancel::new(), &mut |event| {
        if let engine::Event::Token { .. } = event {
            tokens += 1;
            if tokens == 2 {
                std::fs::File::options().write(true).open(&file).unwrap().set_len(8192).unwrap();
            }
        }
    });
    assert!(matches!(result, Err(EngineError::File(_))), "{result:?}");
}
