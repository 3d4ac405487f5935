//! Gemma 3n, for which there is no reference data, against the model's equations in f64, token by token.

mod common;

use common::exact::{self, Weights, add, norm, product};
use common::prompt;
use test_models::ModelSpec;

const HEADS: usize = 4;
const HEAD_DIM: usize = 32;
const WIDTH: usize = 64;
const LAYERS: usize = 4;
const PARTS: usize = 3;
const PER_LAYER: usize = 16;
const WINDOW: usize = 24;

/// To the 11 bits of f16.
fn rounded(x: f64) -> f64 {
    let step = (x.abs().log2().floor() - 10.0).max(-24.0).exp2();
    (x / step).round() * step
}

/// As the engine has it: argument and result are f16. What is nearer to the middle of two arguments than f32 tells apart may
/// round to either: `beside` is how much larger the argument is taken for, as a share of it.
fn gelu(x: f64, beside: f64) -> f64 {
    let x = rounded(x * (1.0 + beside));
    rounded(0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()))
}

fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// `x` with the length of `like`.
fn matched(x: Vec<f64>, like: &[f64]) -> Vec<f64> {
    let factor = length(like) / length(&x);
    x.into_iter().map(|x| x * factor).collect()
}

fn turn(head: &mut [f64], position: usize, base: f64) {
    for i in 0..HEAD_DIM / 2 {
        let angle = position as f64 * base.powf(-2.0 * i as f64 / HEAD_DIM as f64);
        let (p, q) = (head[i], head[i + HEAD_DIM / 2]);
        head[i] = p * angle.cos() - q * angle.sin();
        head[i + HEAD_DIM / 2] = p * angle.sin() + q * angle.cos();
    }
}

/// Keys and values of one layer, [positions][values of all heads].
#[derive(Clone, Default)]
struct Cache {
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
}

fn heads(x: &[f64], change: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    x.chunks_exact(HEAD_DIM).flat_map(change).collect()
}

/// Layers 0 and 2 have windows and another base; layers 2 and 3 read the caches of 0 and 1.
fn attention(w: &Weights, x: &[f64], position: usize, caches: &mut [Cache]) -> Vec<f64> {
    let windowed = w.layer % 2 == 0;
    let base = if windowed { 1000.0 } else { 10_000.0 };
    let turned = |x: &[f64], norm_of: &str| {
        heads(x, |head| {
            let mut head = w.norm(norm_of, head);
            turn(&mut head, position, base);
            head
        })
    };
    if w.layer < 2 {
        let cache = &mut caches[w.layer];
        cache.keys.push(turned(&w.product("attn_k.weight", x), "attn_k_norm.weight"));
        cache.values.push(heads(&w.product("attn_v.weight", x), |head| norm(head, &[1.0; HEAD_DIM])));
    }
    let cache = &caches[w.layer % 2];
    let first = if windowed { (position + 1).saturating_sub(WINDOW) } else { 0 };
    let q = turned(&w.product("attn_q.weight", x), "attn_q_norm.weight");
    let mut out = Vec::new();
    for head in 0..HEADS {
        let part = |row: &[f64]| row[head / 2 * HEAD_DIM..][..HEAD_DIM].to_vec();
        let q = &q[head * HEAD_DIM..][..HEAD_DIM];
        let score = |row: &Vec<f64>| part(row).iter().zip(q).map(|(k, q)| k * q).sum::<f64>();
        let scores: Vec<f64> = cache.keys[first..].iter().map(score).collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let shares: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let mut value = vec![0.0; HEAD_DIM];
        for (row, share) in cache.values[first..].iter().zip(&shares) {
            add(&mut value, &part(row), share / shares.iter().sum::<f64>());
        }
        out.extend(value);
    }
    w.product("attn_output.weight", &out)
}

fn feed_forward(w: &Weights, x: &[f64], beside: f64) -> Vec<f64> {
    let (mut gate, up) = (w.product("ffn_gate.weight", x), w.product("ffn_up.weight", x));
    if w.layer < 2 {
        let mean = gate.iter().sum::<f64>() / gate.len() as f64;
        let squares: f64 = gate.iter().map(|x| (x - mean).powi(2)).sum();
        let cut = mean + 0.5 * (squares / (gate.len() - 1) as f64).sqrt();
        gate.iter_mut().for_each(|x| *x = (*x - cut).max(0.0));
    }
    let inner: Vec<f64> = gate.into_iter().zip(up).map(|(gate, up)| gelu(gate, beside) * up).collect();
    w.product("ffn_down.weight", &inner)
}

fn modalities(w: &Weights, x: &[f64]) -> Vec<f64> {
    let routed = w.product("altup_router.weight", &w.norm("altup_router_norm.weight", x));
    routed.into_iter().map(|x| (x / WIDTH as f64).tanh()).collect()
}

/// One layer on the parts of the stream, of which the first is active.
fn layer(w: &Weights, parts: &mut [Vec<f64>], input: &[f64], position: usize, caches: &mut [Cache], beside: f64) {
    let coefficients = w.product("altup_predict_coef.weight", &modalities(w, &parts[0]));
    let mut predicted = parts.to_vec();
    for (j, out) in predicted.iter_mut().enumerate() {
        for (k, part) in parts.iter().enumerate() {
            add(out, part, coefficients[j * PARTS + k]);
        }
    }
    let normed = w.norm("attn_norm.weight", &predicted[0]);
    let low = w.product("laurel_r.weight", &w.product("laurel_l.weight", &normed));
    let mut x = predicted[0].clone();
    add(&mut x, &w.norm("post_attention_norm.weight", &attention(w, &normed, position, caches)), 1.0);
    add(&mut x, &w.norm("laurel_post_norm.weight", &low), 1.0);
    add(&mut x, &normed, 1.0);
    x.iter_mut().for_each(|x| *x /= 2f64.sqrt());
    let made = feed_forward(w, &w.norm("ffn_norm.weight", &x), beside);
    add(&mut x, &w.norm("post_ffw_norm.weight", &made), 1.0);

    let factors = w.product("altup_correct_coef.weight", &modalities(w, &x));
    let surprise: Vec<f64> = x.iter().zip(&predicted[0]).map(|(x, p)| x - p).collect();
    for ((part, predicted), factor) in parts.iter_mut().zip(predicted).zip(factors) {
        *part = predicted;
        add(part, &surprise, 1.0 + factor);
    }
    let scaled: Vec<f64> = parts[0].iter().zip(w.of("altup_correct_scale.weight")).map(|(x, w)| x * w).collect();
    let gate = w.product("inp_gate.weight", &scaled);
    let own: Vec<f64> = gate.into_iter().zip(input).map(|(gate, input)| gelu(gate, beside) * input).collect();
    let own = w.norm("post_norm.weight", &w.product("proj.weight", &own));
    parts[1..].iter_mut().for_each(|part| add(part, &own, 1.0));
}

/// What every layer gets of the token itself, [layers][values].
fn inputs(w: &Weights, token: usize, embedded: &[f64]) -> Vec<Vec<f64>> {
    let projected = product(&w.tensors["per_layer_model_proj.weight"].1, embedded);
    let embeddings = &w.tensors["per_layer_token_embd.weight"].1[token * LAYERS * PER_LAYER..];
    let of_layer = |(projected, own): (&[f64], &[f64])| {
        let scaled: Vec<f64> = projected.iter().map(|x| x / (WIDTH as f64).sqrt()).collect();
        let normed = norm(&scaled, &w.tensors["per_layer_proj_norm.weight"].1);
        normed.iter().zip(own).map(|(x, own)| (x + own * (PER_LAYER as f64).sqrt()) / 2f64.sqrt()).collect()
    };
    projected.chunks_exact(PER_LAYER).zip(embeddings.chunks_exact(PER_LAYER)).map(of_layer).collect()
}

/// Products with all matrices of a stack.
fn stack(w: &Weights, name: &str, index: usize, x: &[f64]) -> Vec<f64> {
    product(&w.tensors[name].1[index * WIDTH * WIDTH..][..WIDTH * WIDTH], x)
}

fn logits(w: &mut Weights, tokens: &[u32], beside: f64) -> Vec<f64> {
    let mut caches = vec![Cache::default(); 2];
    let mut expected = Vec::new();
    for (position, token) in tokens.iter().enumerate() {
        let row = &w.tensors["token_embd.weight"].1[*token as usize * WIDTH..][..WIDTH];
        let embedded: Vec<f64> = row.iter().map(|x| x * (WIDTH as f64).sqrt()).collect();
        let inputs = inputs(w, *token as usize, &embedded);
        let mut parts = vec![embedded.clone()];
        for index in 0..PARTS - 1 {
            parts.push(matched(stack(w, "altup_proj.weight", index, &embedded), &embedded));
        }
        for (index, input) in inputs.iter().enumerate() {
            w.layer = index;
            layer(w, &mut parts, input, position, &mut caches, beside);
        }
        let mut merged = parts[0].clone();
        for index in 1..PARTS {
            let projected = stack(w, "altup_unembd_proj.weight", index - 1, &parts[index]);
            add(&mut merged, &matched(projected, &parts[0]), 1.0);
        }
        merged.iter_mut().for_each(|x| *x /= PARTS as f64);
        let logits = product(&w.tensors["token_embd.weight"].1, &norm(&merged, &w.tensors["output_norm.weight"].1));
        expected.extend(logits.into_iter().map(|logit| 30.0 * (logit / 30.0).tanh()));
    }
    expected
}

#[test]
fn gemma_3n_is_its_equations() {
    let spec = ModelSpec::gemma3n();
    let mut w = Weights::new(&spec);
    let tokens = prompt(45);
    // One argument of GELU that rounds to the other side moves logits by 0.003; which do, depends on the CPU's order of sums.
    let expected = [0.0, 1e-6, -1e-6].map(|beside| logits(&mut w, &tokens, beside));
    exact::check_between(&spec, &tokens, &expected.each_ref().map(|row| &row[..]), 2e-3);
}
