//! How fast a GPU gets weights from RAM, and how fast it multiplies: whether it pays to compute there what is in RAM follows
//! from that.

use backend::{BackendError, Device, Linear, Op, View, Weight};
use quant::GgmlType;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes from RAM, on the way that weights take.
    pub upload: f64,
    /// 8-bit multiply-adds, by the kernels that read prompts.
    pub int8: f64,
}

/// Several times the pinned memory that copies go through, and more than most caches hold.
const COPY: usize = 64 << 20;
/// The usual type of weights; rows of a prompt, rows and columns of a matrix. Only a device that is quick with one goes on to the
/// next.
const TYPE: GgmlType = GgmlType::Q4_K;
const PRODUCTS: [(usize, usize, usize); 3] = [(32, 128, 256), (128, 512, 1024), (512, 4096, 4096)];
const QUICK: Duration = Duration::from_millis(2);
const TIMES: usize = 3;

/// Measures within a fraction of a second; takes some hundred MiB of RAM and of the device's memory, and gives them back
/// when the device is dropped.
///
/// # Errors
/// No memory, or a device that fails.
pub fn measure(device: &mut dyn Device) -> Result<Rates, BackendError> {
    Ok(Rates { upload: upload(device)?, int8: int8(device)? })
}

fn upload(device: &mut dyn Device) -> Result<f64, BackendError> {
    let (bytes, buffer) = (vec![1u8; COPY], device.allocate(COPY as u64)?);
    let shortest = shortest(&mut || {
        device.write_beside(buffer, 0, &bytes)?;
        device.turn()?;
        device.read(buffer, 0, &mut [0; 4])
    });
    device.free(buffer);
    Ok(COPY as f64 / shortest?)
}

fn int8(device: &mut dyn Device) -> Result<f64, BackendError> {
    let mut rate = 0.0;
    for (n, rows, cols) in PRODUCTS {
        // Zeros take as long as any other numbers.
        let buffer = device.adopt(Arc::new(vec![0u8; rows * cols / TYPE.block_size() * TYPE.type_size()]))?;
        let [input, out] = [cols, rows].map(|len| device.allocate((n * len * 4) as u64).map(View::new));
        let (input, out) = (input?, out?);
        let weight = Weight { buffer, offset: 0, ty: TYPE, rows, cols };
        let products = [Linear { weight, bias: None, scale: 1.0, out }];
        let shortest = shortest(&mut || {
            device.run(&Op::MatMul { input, n, products: &products })?;
            device.read(out.buffer, 0, &mut [0; 4])
        });
        [buffer, input.buffer, out.buffer].into_iter().for_each(|buffer| device.free(buffer));
        let seconds = shortest?;
        rate = (n * rows * cols) as f64 / seconds;
        if seconds > QUICK.as_secs_f64() {
            break;
        }
    }
    Ok(rate)
}

/// Seconds that the quickest of some tries takes, after one that nobody counts.
fn shortest(work: &mut dyn FnMut() -> Result<(), BackendError>) -> Result<f64, BackendError> {
    work()?;
    let mut shortest = f64::INFINITY;
    for _ in 0..TIMES {
        let started = Instant::now();
        work()?;
        shortest = shortest.min(started.elapsed().as_secs_f64());
    }
    Ok(shortest.max(1e-9))
}
