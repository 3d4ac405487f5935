//! How many kernels a layer costs for each token that is generated: on a fast GPU that is what limits small models.

use crate::common::driver::State;
use crate::engine::{generate, prompt, tiny, try_load};
use engine::LoadOptions;
use quant::GgmlType::{self, F16, Q4_K, Q8_0};
use std::collections::BTreeMap;
use test_models::ModelSpec;

type Counts = BTreeMap<&'static str, u64>;

/// Kernels of a token in the middle of an answer.
fn of_a_token(spec: &ModelSpec, kv: GgmlType) -> Counts {
    let file = tiny(spec);
    let options =
        LoadOptions { context: 96, gpu_layers: 99.into(), kv_type_k: kv, kv_type_v: kv, ..LoadOptions::default() };
    let (engine, state) = try_load(file.path(), options, State::default()).unwrap();
    let mut counts: Vec<Counts> = Vec::new();
    generate(&engine, &prompt(20), 8, &mut |_| counts.push(state.lock().unwrap().kernels.clone()));
    let [before, after] = [3, 4].map(|token: usize| &counts[token]);
    let more = |(kernel, count): (&&'static str, &u64)| (*kernel, count - before.get(kernel).unwrap_or(&0));
    after.iter().map(more).filter(|(_, count)| *count > 0).collect()
}

/// Kernels of a layer of it, and all of them besides products.
fn of_a_layer(spec: &ModelSpec, kv: GgmlType) -> Counts {
    let [few, many] = [2, 5].map(|n_layer| of_a_token(&ModelSpec { n_layer, ..spec.clone() }, kv));
    let mut layer = Counts::new();
    for (kernel, count) in many {
        let more = count - few.get(kernel).unwrap_or(&0);
        assert_eq!(more % 3, 0, "{kernel}");
        if more > 0 {
            layer.insert(kernel, more / 3);
        }
    }
    println!("{} {:?}, {kv} cached: {} kernels, {layer:?}", spec.arch, spec.ty, layer.values().sum::<u64>());
    layer
}

/// A layer's kernels besides its products, of which there are so many.
fn besides_products(spec: &ModelSpec, kv: GgmlType, products: u64) -> Vec<(&'static str, u64)> {
    let (of_products, others): (Counts, Counts) =
        of_a_layer(spec, kv).into_iter().partition(|(kernel, _)| kernel.starts_with("mat"));
    assert_eq!(of_products.values().sum::<u64>(), products, "{of_products:?}");
    others.into_iter().collect()
}

#[test]
fn kernels_of_a_layer() {
    // Of norms there are those of the stream, which add the residual; heads have theirs with them.
    // q, k and v are one product, gate and up another.
    let llama = besides_products(&ModelSpec::quantized(Q4_K), F16, 4);
    assert_eq!(llama, [("attention_tensor_1_1", 1), ("glu", 1), ("heads", 1), ("norm", 2)]);
    let qwen3 = besides_products(&ModelSpec { ty: Q8_0, ..ModelSpec::qwen3() }, F16, 4);
    assert_eq!(qwen3, llama);
    // What attention gives is rotated back.
    let quantized = besides_products(&ModelSpec { ty: Q8_0, ..ModelSpec::qwen3() }, Q8_0, 4);
    let [attention, glu, heads, norm] = llama[..] else { panic!("{llama:?}") };
    assert_eq!(quantized, [attention, glu, ("hadamard", 1), heads, norm]);
    // The router's, and of experts three.
    let mixture = besides_products(&ModelSpec { ty: Q8_0, ..ModelSpec::qwen3moe() }, F16, 6);
    let chosen = [("combine", 1), ("glu", 1), ("heads", 1), ("norm", 2), ("route", 1)];
    assert_eq!(mixture, [&[("attention_tensor_1_1", 1)], &chosen[..]].concat());
}
