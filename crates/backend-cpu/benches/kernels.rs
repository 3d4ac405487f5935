//! Single operations, one thread: `cargo bench -p backend-cpu [-- PART OF A NAME] [--avx2 | --avx-vnni]`. Each line is the least time of many
//! passes, the processor's where the system tells it, so that other programs disturb little.

use backend::{AttentionSpec, Device, KvCache, Linear, Op, View, Weight};
use backend_cpu::{CpuConfig, CpuDevice, Precision, SimdLevel, ThreadPool};
use quant::GgmlType::{self, *};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Columns and rows of weights: 0.6 MB of Q4_K, which stay in the second- or third-level cache; for prompts so many that
/// rounding the activations takes little.
const COLS: usize = 4096;
const ROWS: [usize; 2] = [256, 1024];
/// A quarter of the heads of Llama 3 8B: passes must be short to be undisturbed.
const HEADS: usize = 8;
const HEADS_KV: usize = 2;
const HEAD_DIM: usize = 128;
const DEPTH: usize = 2048;
const PROMPT: usize = 32;
/// How long one operation is measured.
const DURATION: Duration = Duration::from_millis(800);

fn main() {
    // Cargo adds `--bench`.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    let simd = match (given("--avx2"), given("--avx-vnni")) {
        (true, _) => Some(SimdLevel::Avx2),
        (_, true) => Some(SimdLevel::AvxVnni),
        _ => None,
    };
    let mut bench = Bench { wanted, device: device(simd) };
    for ty in [
        Q4_K, Q5_K, Q6_K, Q8_0, Q2_K, Q3_K, Q4_0, Q5_0, IQ4_XS, IQ4_NL, MXFP4, IQ3_S, IQ3_XXS, IQ2_S, IQ2_XS, IQ2_XXS,
        IQ1_M, IQ1_S, TQ2_0, F16, BF16, F32,
    ] {
        bench.product(ty, 1);
        bench.product(ty, 512);
    }
    for ty in [F16, Q8_0, Q4_0] {
        bench.attention(ty, 1);
        bench.attention(ty, PROMPT);
    }
}

/// The time that this thread has computed.
#[cfg(target_os = "linux")]
fn seconds() -> f64 {
    unsafe extern "C" {
        safe fn clock_gettime(clock: i32, time: &mut [i64; 2]) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0; 2];
    assert_eq!(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time), 0);
    time[0] as f64 + time[1] as f64 / 1e9
}

#[cfg(not(target_os = "linux"))]
fn seconds() -> f64 {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

fn device(simd: Option<SimdLevel>) -> CpuDevice {
    let config = CpuConfig { threads: 1, precision: Precision::Fast, simd };
    CpuDevice::new(Arc::new(ThreadPool::new(1)), config)
}

struct Bench {
    wanted: String,
    device: CpuDevice,
}

impl Bench {
    fn buffer(&mut self, bytes: usize) -> View {
        View::new(self.device.allocate(bytes as u64).expect("memory"))
    }

    /// Rows of numbers: zeros take as long, except where their scales are below what f32 has exponents for.
    fn weights(&mut self, ty: GgmlType, bytes: usize, rows: usize) -> View {
        let values: Vec<f32> = (0..COLS).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut row = vec![0; bytes / rows];
        quant::quantize_row(ty, &values, Some(&vec![1.0; COLS]), &mut row).expect("a type with a quantizer");
        let view = self.buffer(bytes);
        self.device.write(view.buffer, 0, &row.repeat(rows)).expect("room");
        view
    }

    /// Rows of activations: zeros would be rounded in another way.
    fn activations(&mut self, n: usize) -> View {
        let values: Vec<f32> = (0..n * COLS).map(|i| (i as f32 * 0.37).sin()).collect();
        let view = self.buffer(n * COLS * 4);
        self.device.write(view.buffer, 0, bytemuck::cast_slice(&values)).expect("room");
        view
    }

    /// Runs `op` and prints how often its `work`, in units of 10^9, is done in a second.
    fn measure(&mut self, name: &str, work: usize, unit: &str, op: &Op<'_>) {
        let (mut least, started) = (f64::INFINITY, Instant::now());
        while started.elapsed() < DURATION {
            let pass = seconds();
            self.device.run(op).expect("a valid operation");
            least = least.min(seconds() - pass);
        }
        println!("{name:<28} {:>8.1} {unit}", work as f64 / least / 1e9);
    }

    fn product(&mut self, ty: GgmlType, n: usize) {
        let name = format!("{ty} x {n}");
        if !name.contains(&self.wanted) {
            return;
        }
        let rows = ROWS[usize::from(n > 1)];
        let bytes = COLS / ty.block_size() * ty.type_size() * rows;
        let (weight, input, out) = (self.weights(ty, bytes, rows), self.activations(n), self.buffer(n * rows * 4));
        let weight = Weight { buffer: weight.buffer, offset: 0, ty, rows, cols: COLS };
        let products = [Linear { weight, bias: None, scale: 1.0, out }];
        let (work, unit) = if n == 1 { (bytes, "GB/s") } else { (n * rows * COLS, "G multiply-adds/s") };
        self.measure(&name, work, unit, &Op::MatMul { input, n, products: &products });
    }

    /// `n` rows behind [`DEPTH`] others.
    fn attention(&mut self, ty: GgmlType, n: usize) {
        let name = format!("attention {ty} x {n}");
        if !name.contains(&self.wanted) {
            return;
        }
        let row = ty.row_bytes(HEAD_DIM).expect("whole blocks");
        let bytes = HEADS_KV * (DEPTH + n) * row;
        let (k, v) = (self.buffer(bytes), self.buffer(bytes));
        let (q, out) = (self.buffer(n * HEADS * HEAD_DIM * 4), self.buffer(n * HEADS * HEAD_DIM * 4));
        let cache = KvCache {
            k: k.buffer,
            v: Some(v.buffer),
            k_type: ty,
            v_type: ty,
            head_count_kv: HEADS_KV,
            head_dim_k: HEAD_DIM,
            head_dim_v: HEAD_DIM,
            capacity: DEPTH + n,
        };
        let spec = AttentionSpec { head_count: HEADS, scale: 0.1, softcap: 0.0, window: 0, sinks: None };
        let work = if n == 1 { 2 * bytes } else { 2 * n * HEADS * HEAD_DIM * (DEPTH + n / 2) };
        let unit = if n == 1 { "GB/s" } else { "G multiply-adds/s" };
        self.measure(&name, work, unit, &Op::Attention { cache, spec, q, n, start: DEPTH, out });
    }
}
