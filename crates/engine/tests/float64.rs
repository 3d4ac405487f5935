//! Hybrids with Mamba-2, for which there is no reference data, against the models' equations in f64, token by token.

mod common;

use common::exact::{self, Weights, add, norm, product, sigmoid, silu};
use common::prompt;
use test_models::ModelSpec;

const HEADS: usize = 4;
const HEAD_DIM: usize = 32;
const STATE: usize = 32;
const KERNEL: usize = 4;

/// What one layer remembers.
#[derive(Clone, Default)]
struct Memory {
    inputs: Vec<Vec<f64>>,
    state: Vec<f64>,
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
}

fn mamba(w: &Weights, x: &[f64], groups: usize, memory: &mut Memory) -> Vec<f64> {
    let inner = HEADS * HEAD_DIM;
    let channels = inner + 2 * groups * STATE;
    let all = w.product("ssm_in.weight", x);
    memory.inputs.push(all[inner..inner + channels].to_vec());
    memory.state.resize(inner * STATE, 0.0);
    let mut conv = w.of("ssm_conv1d.bias").to_vec();
    for (back, input) in memory.inputs.iter().rev().take(KERNEL).enumerate() {
        for (c, sum) in conv.iter_mut().enumerate() {
            *sum += w.of("ssm_conv1d.weight")[c * KERNEL + KERNEL - 1 - back] * input[c];
        }
    }
    let xbc: Vec<f64> = conv.into_iter().map(silu).collect();
    let mut y = Vec::new();
    for head in 0..HEADS {
        let group = head / (HEADS / groups);
        let step = (1.0 + (all[inner + channels + head] + w.of("ssm_dt.bias")[head]).exp()).ln();
        let decay = (w.of("ssm_a")[head] * step).exp();
        for i in 0..HEAD_DIM {
            let value = xbc[head * HEAD_DIM + i];
            let mut sum = w.of("ssm_d")[head] * value;
            for j in 0..STATE {
                let state = &mut memory.state[(head * HEAD_DIM + i) * STATE + j];
                *state = decay * *state + step * value * xbc[inner + group * STATE + j];
                sum += *state * xbc[inner + (groups + group) * STATE + j];
            }
            y.push(sum * silu(all[head * HEAD_DIM + i]));
        }
    }
    let weights = w.of("ssm_norm.weight").chunks_exact(inner / groups);
    let normed: Vec<f64> = y.chunks_exact(inner / groups).zip(weights).flat_map(|(y, w)| norm(y, w)).collect();
    w.product("ssm_out.weight", &normed)
}

fn attention(w: &Weights, x: &[f64], scale: f64, memory: &mut Memory) -> Vec<f64> {
    let q = w.product("attn_q.weight", x);
    memory.keys.push(w.product("attn_k.weight", x));
    memory.values.push(w.product("attn_v.weight", x));
    let mut out = Vec::new();
    for (head, q) in q.chunks_exact(HEAD_DIM).enumerate() {
        let of_head = |row: &[f64]| row[head / 2 * HEAD_DIM..][..HEAD_DIM].to_vec();
        let dot = |k: &Vec<f64>| scale * of_head(k).iter().zip(q).map(|(k, q)| k * q).sum::<f64>();
        let scores: Vec<f64> = memory.keys.iter().map(|k| dot(k).exp()).collect();
        let sum: f64 = scores.iter().sum();
        let mut value = vec![0.0; HEAD_DIM];
        memory.values.iter().zip(&scores).for_each(|(v, score)| add(&mut value, &of_head(v), score / sum));
        out.extend(value);
    }
    w.product("attn_output.weight", &out)
}

fn swiglu(w: &Weights, x: &[f64]) -> Vec<f64> {
    let (gate, up) = (w.product("ffn_gate.weight", x), w.product("ffn_up.weight", x));
    let inner: Vec<f64> = gate.into_iter().zip(up).map(|(gate, up)| silu(gate) * up).collect();
    w.product("ffn_down.weight", &inner)
}

/// Four experts on a projection of the stream, two used, chosen by biased sigmoids; a shared one on the stream itself;
/// squares of positive values instead of gates.
fn relu2_experts(w: &Weights, x: &[f64]) -> Vec<f64> {
    let relu2 = |values: Vec<f64>| values.into_iter().map(|x| x.max(0.0).powi(2)).collect::<Vec<f64>>();
    let scores: Vec<f64> = w.product("ffn_gate_inp.weight", x).into_iter().map(sigmoid).collect();
    let mut order: Vec<usize> = (0..4).collect();
    order.sort_by(|a, b| {
        let key = |i: usize| scores[i] + w.of("exp_probs_b.bias")[i];
        key(*b).total_cmp(&key(*a))
    });
    let sum = scores[order[0]] + scores[order[1]];
    let narrow = w.product("ffn_latent_down.weight", x);
    let mut chosen = vec![0.0; narrow.len()];
    for expert in &order[..2] {
        let part = |name: &str| w.of(name).chunks_exact(w.of(name).len() / 4).nth(*expert).expect("four experts");
        let inner = relu2(product(part("ffn_up_exps.weight"), &narrow));
        add(&mut chosen, &product(part("ffn_down_exps.weight"), &inner), 1.5 * scores[*expert] / sum);
    }
    let mut out = w.product("ffn_latent_up.weight", &chosen);
    add(&mut out, &w.product("ffn_down_shexp.weight", &relu2(w.product("ffn_up_shexp.weight", x))), 1.0);
    out
}

/// Adds one layer to the stream.
type LayerOf = fn(&Weights, &mut [f64], &mut Memory);

fn granite(w: &Weights, x: &mut [f64], memory: &mut Memory) {
    let normed = w.norm("attn_norm.weight", x);
    let mixed = match w.has("ssm_in.weight") {
        true => mamba(w, &normed, 1, memory),
        false => attention(w, &normed, 0.3, memory),
    };
    add(x, &mixed, 0.6);
    let normed = w.norm("ffn_norm.weight", x);
    add(x, &swiglu(w, &normed), 0.6);
}

fn nemotron(w: &Weights, x: &mut [f64], memory: &mut Memory) {
    let normed = w.norm("attn_norm.weight", x);
    let out = if w.has("ssm_in.weight") {
        mamba(w, &normed, 2, memory)
    } else if w.has("attn_q.weight") {
        attention(w, &normed, 1.0 / (HEAD_DIM as f64).sqrt(), memory)
    } else {
        relu2_experts(w, &normed)
    };
    add(x, &out, 1.0);
}

fn check(spec: &ModelSpec, layer: LayerOf, embedding_scale: f64, output: &str, logit_scale: f64) {
    let mut w = Weights::new(spec);
    let tokens = prompt(45);
    let mut memories = vec![Memory::default(); 4];
    let mut expected = Vec::new();
    for token in &tokens {
        let (width, embedding) = &w.tensors["token_embd.weight"];
        let row = &embedding[*token as usize * width..][..*width];
        let mut x: Vec<f64> = row.iter().map(|value| value * embedding_scale).collect();
        for (index, memory) in memories.iter_mut().enumerate() {
            w.layer = index;
            layer(&w, &mut x, memory);
        }
        let logits = product(&w.tensors[output].1, &norm(&x, &w.tensors["output_norm.weight"].1));
        expected.extend(logits.into_iter().map(|logit| logit * logit_scale));
    }
    exact::check(spec, &tokens, &expected, 1e-4);
}

#[test]
fn granite_4_is_its_equations() {
    check(&ModelSpec::granite_hybrid(), granite, 6.0, "token_embd.weight", 1.0 / 0.15);
}

#[test]
fn nemotron_h_is_its_equations() {
    check(&ModelSpec::nemotron_h(), nemotron, 1.0, "output.weight", 1.0);
}
