//! How fast this CPU multiplies: what the speed of reading a prompt follows from.

use crate::{CpuConfig, CpuDevice, Precision, Simd, ThreadPool};
use backend::{BackendError, Device, Linear, Op, View, Weight};
use quant::GgmlType;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The usual type of weights, and a product that is large beside its beginning and its end.
const TYPE: GgmlType = GgmlType::Q4_K;
const ROWS: usize = 1024;
const COLS: usize = 4096;
const TOKENS: usize = 128;

/// 8-bit multiply-adds per second of so many threads, by the kernels that read prompts. Takes a third of a second.
///
/// # Errors
/// No memory for a few megabytes.
pub fn int8_rate(threads: usize) -> Result<f64, BackendError> {
    const DURATION: Duration = Duration::from_millis(300);
    let pool = Arc::new(ThreadPool::new(threads));
    let mut device = CpuDevice::new(pool, CpuConfig { threads, precision: Precision::Fast, simd: None });
    // Zeros take as long as any other numbers.
    let weight = device.allocate((COLS / TYPE.block_size() * TYPE.type_size() * ROWS) as u64)?;
    let input = View::new(device.allocate((TOKENS * COLS * 4) as u64)?);
    let out = View::new(device.allocate((TOKENS * ROWS * 4) as u64)?);
    let weight = Weight { buffer: weight, offset: 0, ty: TYPE, rows: ROWS, cols: COLS };
    let products = [Linear { weight, bias: None, scale: 1.0, out }];
    let product = Op::MatMul { input, n: TOKENS, products: &products };
    // The first one wakes threads and makes pages.
    device.run(&product)?;
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < DURATION {
        device.run(&product)?;
        done += 1;
    }
    Ok(f64::from(done) * (ROWS * COLS * TOKENS) as f64 / started.elapsed().as_secs_f64())
}

/// 8-bit multiply-adds per second of so many threads that do nothing else, with operands in registers: what no kernel can
/// exceed on this CPU. Takes a fifth of a second.
pub fn int8_limit(threads: usize) -> f64 {
    const DURATION: Duration = Duration::from_millis(200);
    const ROUNDS: u32 = 1 << 14;
    let simd = Simd::best();
    let work = || {
        // The first ones raise the clock.
        simd.multiply_adds(ROUNDS);
        let (started, mut done) = (Instant::now(), 0);
        while started.elapsed() < DURATION {
            done += simd.multiply_adds(ROUNDS);
        }
        done as f64 / started.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        // A thread that cannot be started does no work.
        work() + others.into_iter().filter_map(|other| other.join().ok()).sum::<f64>()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn rates_are_plausible_and_no_kernel_exceeds_the_limit() {
        let rate = super::int8_rate(1).unwrap();
        assert!((1e7..1e14).contains(&rate), "{rate}");
        let limit = super::int8_limit(1);
        // Other programs may disturb either.
        assert!((1e7..1e14).contains(&limit) && rate <= 2.0 * limit, "{rate} of {limit}");
    }
}
