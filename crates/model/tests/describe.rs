//! Descriptions of what the families have, and refusals.

use model::{Layout, LayoutParams, ModelError, Place, Placement};
use quant::GgmlType;
use test_models::ModelSpec;

fn describe(spec: &ModelSpec) -> Result<model::Model, ModelError> {
    let bytes = spec.build();
    model::describe(&gguf::Gguf::parse(&bytes, bytes.len() as u64).expect("a header"))
}

#[test]
fn every_family_is_described_without_a_tensor_left_over() {
    for spec in [
        ModelSpec::llama(),
        ModelSpec::llama3(),
        ModelSpec::mixtral(),
        ModelSpec::qwen2(),
        ModelSpec::qwen3(),
        ModelSpec::qwen3moe(),
        ModelSpec { output_bias: true, ..ModelSpec::llama() },
    ] {
        let model = describe(&spec).unwrap();
        assert_eq!(model.unused_tensors, Vec::<String>::new(), "{}", spec.arch);
        assert_eq!(model.layers.len(), spec.n_layer as usize);
        assert_eq!(model.vocab_size, spec.n_vocab as usize);
        let layer = &model.layers[0];
        assert_eq!(layer.attention().unwrap().q_norm.is_some(), spec.qk_norm);
        assert_eq!(layer.experts().is_some(), spec.experts.is_some());
        assert_eq!(layer.attention().unwrap().rope.unwrap().factors.is_some(), spec.rope_freqs);
    }
}

#[test]
fn the_other_architectures_are_described_without_a_tensor_left_over() {
    for spec in ModelSpec::every_kind() {
        let model = describe(&spec).unwrap_or_else(|error| panic!("{}: {error}", spec.arch));
        assert_eq!(model.unused_tensors, Vec::<String>::new(), "{}", spec.arch);
        assert_eq!(model.layers.len(), 4);
    }
}

#[test]
fn every_kind_of_layer_counts_what_it_keeps() {
    let params =
        LayoutParams { context: 4000, ubatch: 16, kv_type_k: GgmlType::F16, kv_type_v: GgmlType::F16, logits_rows: 1 };
    let layers = |spec: ModelSpec| Layout::new(&describe(&spec).unwrap(), params).unwrap().layers;
    // A window of 24, a micro-batch and some cells to go back, against all positions.
    let gemma2 = layers(ModelSpec::gemma2());
    assert_eq!((gemma2[0].cells, gemma2[1].cells), (24 + 16 + 1024, 4000));
    // The last two read the caches of the first two.
    let gemma4 = layers(ModelSpec::gemma4());
    assert_eq!(gemma4.iter().map(|l| l.cache_source).collect::<Vec<_>>(), [None, None, Some(0), Some(1)]);
    assert_eq!((gemma4[2].cache(), gemma4[3].cache()), (0, 0));
    // One latent key of 64 + 32 values for each position, no values.
    let latent = layers(ModelSpec::deepseek2());
    assert_eq!((latent[0].k, latent[0].v), (4000 * 96 * 2, 0));
    // Three rows of 64 channels, for each state.
    let conv = layers(ModelSpec::lfm2());
    assert_eq!((conv[0].state, conv[0].cache(), conv[2].state), (4 * 3 * 64 * 4, 0, 0));
    // Three rows of 256 channels and four heads of 32 x 32.
    let delta = layers(ModelSpec::qwen35());
    assert_eq!((delta[0].state, delta[3].state), (4 * (3 * 256 + 4 * 32 * 32) * 4, 0));
}

/// Whatever number a file has in place of one of its own: an answer or a refusal, in bounded time.
#[test]
fn no_number_in_a_header_makes_a_description_panic() {
    let params = LayoutParams {
        context: u32::MAX,
        ubatch: 512,
        kv_type_k: GgmlType::F16,
        kv_type_v: GgmlType::F16,
        logits_rows: 1,
    };
    let mut refused = 0;
    for spec in ModelSpec::every_kind() {
        let (header, file_len) = spec.header();
        let numbers: Vec<String> = {
            let gguf = gguf::Gguf::parse(&header, file_len).unwrap();
            let own = format!("{}.", spec.arch);
            let numeric = |key: &str| gguf.metadata.u64(key).is_some() || gguf.metadata.f32(key).is_some();
            gguf.metadata.iter().map(|(key, _)| key.to_string()).filter(|k| k.starts_with(&own) && numeric(k)).collect()
        };
        for key in numbers {
            // A key is written with its length before it and a type (4 bytes) after it.
            let written = [&(key.len() as u64).to_le_bytes(), key.as_bytes()].concat();
            let at = header.windows(written.len()).position(|w| w == written).unwrap() + written.len() + 4;
            for value in [0, 1, 2, 3, 5, 31, 33, 1 << 20, i32::MAX as u32, u32::MAX, 0x7fc0_0000, 0xff80_0000] {
                let mut bytes = header.clone();
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
                let gguf = gguf::Gguf::parse(&bytes, file_len).unwrap();
                match model::describe(&gguf) {
                    Ok(model) => drop(Layout::new(&model, params).map(|layout| layout.totals(3))),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn an_unknown_architecture_is_refused_by_name() {
    let error = describe(&ModelSpec { arch: "wavenet".into(), ..ModelSpec::llama() }).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ModelError::UnknownArchitecture { .. }));
    assert!(text.contains("wavenet") && text.contains("qwen3moe"), "{text}");
}

#[test]
fn sizes_that_do_not_fit_the_tensors_are_refused() {
    let refused = |key: &str, value: u32| {
        // In the file a key is followed by its type (4 bytes) and its value.
        let mut bytes = ModelSpec::llama().build();
        let key_at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        let value_at = key_at + key.len() + 4;
        bytes[value_at..value_at + 4].copy_from_slice(&value.to_le_bytes());
        let gguf = gguf::Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(gguf.metadata.u64(key), Some(u64::from(value)));
        model::describe(&gguf).unwrap_err()
    };
    for (key, value) in [
        ("llama.embedding_length", 63),
        ("llama.embedding_length", 0),
        ("llama.block_count", 3),
        ("llama.block_count", u32::MAX),
        ("llama.attention.head_count", 8),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.feed_forward_length", u32::MAX),
        ("llama.rope.dimension_count", 7),
        ("llama.rope.dimension_count", 4096),
    ] {
        let error = refused(key, value);
        assert!(!error.to_string().is_empty(), "{key} = {value}");
    }
}

#[test]
fn the_layout_is_the_sum_of_its_parts_at_every_placement() {
    let model = describe(&ModelSpec { n_layer: 4, ..ModelSpec::mixtral() }).unwrap();
    let params =
        LayoutParams { context: 100, ubatch: 8, kv_type_k: GgmlType::F16, kv_type_v: GgmlType::F32, logits_rows: 2 };
    let layout = Layout::new(&model, params).unwrap();
    // 100 cells x 2 heads x 16 values.
    assert_eq!((layout.layers[0].k, layout.layers[0].v), (100 * 2 * 16 * 2, 100 * 2 * 16 * 4));
    let all = layout.totals(0).host;
    for layers in 0..=5 {
        let totals = layout.totals(layers);
        assert_eq!(totals.host.kv + totals.accelerator(0).kv, all.kv);
        assert_eq!(totals.host.weights + totals.accelerator(0).weights, all.weights);
        assert_eq!(totals.accelerator(0).total() == 0, layers == 0);
    }
    assert_eq!(layout.totals(5).host.compute, 0);
    assert_eq!(layout.totals(99), layout.totals(5));
}

/// Every byte is somewhere, wherever layers are: also in holes, and with caches that layers elsewhere read.
#[test]
fn layers_may_be_on_several_accelerators() {
    for spec in [ModelSpec { n_layer: 4, ..ModelSpec::mixtral() }, ModelSpec::gemma4(), ModelSpec::qwen35()] {
        let model = describe(&spec).unwrap();
        let (kv_type_k, kv_type_v) = (GgmlType::F16, GgmlType::F16);
        let params = LayoutParams { context: 64, ubatch: 8, kv_type_k, kv_type_v, logits_rows: 1 };
        let layout = Layout::new(&model, params).unwrap();
        let (blocks, all) = (layout.block_count(), layout.totals(0).host);
        let one = layout.totals(blocks + 1).accelerator(0);
        for round in 0..3usize.pow(blocks.min(5) as u32 + 1) {
            let place = |index: usize| match round / 3usize.pow(index.min(5) as u32) % 3 {
                0 => Place::Host,
                number => Place::Accelerator(number - 1),
            };
            let placement = Placement::at((0..=blocks).map(place));
            let totals = layout.placed(&placement);
            let copies: u64 = placement
                .used()
                .into_iter()
                .flat_map(|place| layout.copied_sources(&placement, place))
                .map(|source| layout.layers[source].cache())
                .sum();
            assert_eq!(totals.host.kv + totals.on_accelerators().kv, all.kv + copies);
            for number in 0..2 {
                let parts = totals.accelerator(number);
                assert_eq!(parts.total() > 0, placement.has(Place::Accelerator(number)));
                assert!(parts.weights <= one.weights && parts.compute <= one.compute);
            }
            if !placement.has(Place::Host) {
                assert_eq!((totals.on_accelerators().weights, totals.host.kv), (one.weights, 0));
            }
            // Which of two it is makes no difference.
            let turned = (0..=blocks).map(|index| match place(index) {
                Place::Accelerator(number) => Place::Accelerator(1 - number),
                Place::Host => Place::Host,
            });
            let turned = layout.placed(&Placement::at(turned));
            assert_eq!((turned.accelerator(0), turned.accelerator(1)), (totals.accelerator(1), totals.accelerator(0)));
            assert_eq!(turned.host, totals.host);
        }
    }
}

#[test]
fn routed_experts_may_stay_behind() {
    // The router, its bias and the shared expert go along; three matrices with their biases or scales do not.
    let specs = [ModelSpec { n_layer: 4, ..ModelSpec::mixtral() }, ModelSpec::deepseek2(), ModelSpec::gpt_oss()];
    for spec in specs {
        let model = describe(&spec).unwrap();
        let (kv_type_k, kv_type_v) = (GgmlType::F16, GgmlType::F16);
        let params = LayoutParams { context: 64, ubatch: 8, kv_type_k, kv_type_v, logits_rows: 1 };
        let layout = Layout::new(&model, params).unwrap();
        let (blocks, all) = (layout.block_count(), layout.totals(0).host);
        for layer in &model.layers {
            let (both, rest) = (layer.expert_tensors(), layer.tensors_without_experts());
            assert_eq!(both.is_empty(), layer.experts().is_none());
            assert_eq!(both.len() + rest.len(), layer.tensors().len());
            assert!(both.iter().all(|expert| rest.iter().all(|tensor| tensor.index != expert.index)));
            assert!(both.iter().all(|tensor| tensor.experts > 1 || tensor.rows > 1), "{}", spec.arch);
        }
        for gpu_layers in 0..=blocks + 1 {
            let whole = layout.totals(gpu_layers);
            for cpu_moe in 0..=blocks {
                let placement = Placement::new(gpu_layers, blocks).with_cpu_moe(cpu_moe);
                let totals = layout.placed(&placement);
                let apart: u64 = (0..blocks)
                    .filter(|index| *index < cpu_moe && placement.on_accelerator(*index))
                    .map(|index| model.layers[index].expert_tensors().iter().map(|tensor| tensor.bytes).sum::<u64>())
                    .sum();
                assert_eq!(totals.host.weights, whole.host.weights + apart);
                assert_eq!(totals.host.kv + totals.accelerator(0).kv, all.kv);
                assert_eq!(totals.accelerator(0).kv, whole.accelerator(0).kv, "caches are where the attention is");
                assert_eq!(totals.accelerator(0).compute, whole.accelerator(0).compute);
                assert_eq!(totals.host.compute > 0, apart > 0 || gpu_layers <= blocks);
                assert_eq!(totals.accelerator(0).weights < whole.accelerator(0).weights, apart > 0);
            }
        }
        let everywhere = Placement::new(99, blocks).with_cpu_moe(99);
        assert_eq!(everywhere.cpu_moe, blocks);
        assert_eq!(layout.expert_layers(), model.layers.iter().filter(|layer| layer.experts().is_some()).count());
    }
}

#[test]
fn the_last_layers_go_first_and_the_output_layer_at_the_end() {
    let on = |gpu_layers| {
        let placement = Placement::new(gpu_layers, 3);
        (0..=3).filter(|index| placement.on_accelerator(*index)).collect::<Vec<_>>()
    };
    assert_eq!(on(0), Vec::<usize>::new());
    assert_eq!(on(1), [2]);
    assert_eq!(on(3), [0, 1, 2]);
    assert_eq!(on(4), [0, 1, 2, 3]);
    assert_eq!(on(9), [0, 1, 2, 3]);
}

#[test]
fn heads_are_stored_in_whole_blocks_where_that_saves_anything() {
    let bytes = |head_dim: u32, ty: GgmlType| {
        let model = describe(&ModelSpec { head_dim, ..ModelSpec::llama() }).unwrap();
        let params = LayoutParams { context: 10, ubatch: 1, kv_type_k: ty, kv_type_v: GgmlType::F16, logits_rows: 1 };
        Layout::new(&model, params).map(|layout| layout.layers[0].k)
    };
    // 10 cells of two heads, of three blocks of 34 bytes; of one of 18.
    assert_eq!(bytes(80, GgmlType::Q8_0), Ok(10 * 2 * 3 * 34));
    assert_eq!(bytes(96, GgmlType::Q8_0), Ok(10 * 2 * 3 * 34));
    assert_eq!(bytes(16, GgmlType::Q4_0), Ok(10 * 2 * 18));
    // As many bytes as f16 has, or more.
    let refused = bytes(16, GgmlType::Q8_0).unwrap_err();
    assert!(matches!(&refused, ModelError::Unsupported(why) if why.contains("take F16")), "{refused}");
}
