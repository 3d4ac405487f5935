//! The device under test beside the CPU's exact arithmetic: the same buffers with the same ids, the same operations.

use super::driver::{State, TestDriver};
use backend::{BackendError, BufferId, Device, Need, Op, View};
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use backend_cuda::{GpuConfig, GpuDevice};
use std::sync::Arc;

pub struct Pair {
    pub gpu: GpuDevice<TestDriver>,
    pub cpu: CpuDevice,
    /// The most scratch memory that was said to be needed: for products, for attention.
    scratch: [u64; 2],
}

impl Pair {
    /// `seed` is that of the emulated threads' order.
    pub fn new(seed: u64) -> Pair {
        Pair::with(State { seed, ..State::default() })
    }

    pub fn with(state: State) -> Pair {
        Pair::configured(state, GpuConfig::default())
    }

    pub fn configured(state: State, gpu: GpuConfig) -> Pair {
        let config = CpuConfig { threads: 1, precision: Precision::Exact, simd: None };
        let cpu = CpuDevice::new(Arc::new(ThreadPool::new(1)), config);
        let (driver, _) = TestDriver::new(State { exact: true, ..state });
        Pair { gpu: GpuDevice::new(driver, gpu), cpu, scratch: [0; 2] }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> BufferId {
        let id = self.gpu.allocate(bytes.len() as u64).unwrap();
        assert_eq!(id, self.cpu.allocate(bytes.len() as u64).unwrap());
        self.gpu.write(id, 0, bytes).unwrap();
        self.cpu.write(id, 0, bytes).unwrap();
        id
    }

    pub fn floats(&mut self, values: &[f32]) -> View {
        View::new(self.bytes(bytemuck::cast_slice(values)))
    }

    pub fn ints(&mut self, values: &[u32]) -> View {
        View::new(self.bytes(bytemuck::cast_slice(values)))
    }

    /// A place for results, full of NaN.
    pub fn out(&mut self, len: usize) -> View {
        self.floats(&vec![f32::NAN; len])
    }

    pub fn run(&mut self, op: &Op<'_>) {
        self.gpu.run(op).unwrap();
        self.cpu.run(op).unwrap();
        for need in op.needs() {
            let bytes = self.gpu.scratch(&need).expect("what is done can be done");
            let most = &mut self.scratch[usize::from(matches!(need, Need::Attention { .. }))];
            *most = bytes.max(*most);
        }
        let (held, said) = (self.gpu.scratch_bytes(), self.scratch.iter().sum::<u64>());
        assert!(held <= said, "{} holds {held} bytes of scratch memory, not {said}", op.name());
    }

    /// Both must refuse.
    pub fn refuse(&mut self, op: &Op<'_>) {
        for device in [&mut self.gpu as &mut dyn Device, &mut self.cpu] {
            let result = device.run(op);
            assert!(matches!(result, Err(BackendError::Invalid { .. })), "{}: {result:?}", device.name());
        }
    }

    pub fn results(&mut self, view: View, len: usize) -> [Vec<f32>; 2] {
        [read(&mut self.gpu, view, len), read(&mut self.cpu, view, len)]
    }

    /// Values agree to `tolerance` of the larger of 1 and themselves.
    pub fn compare(&mut self, view: View, len: usize, tolerance: f32, what: &str) {
        let [gpu, cpu] = self.results(view, len);
        for (i, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
            let error = (gpu - cpu).abs() / cpu.abs().max(1.0);
            assert!(error <= tolerance || gpu == cpu, "{what}: value {i} is {gpu}, not {cpu} (error {error})");
        }
    }

    /// The same bytes, also those of what must not be written.
    pub fn same_bytes(&mut self, id: BufferId, len: usize, what: &str) {
        let (mut gpu, mut cpu) = (vec![0u8; len], vec![0u8; len]);
        self.gpu.read(id, 0, &mut gpu).unwrap();
        self.cpu.read(id, 0, &mut cpu).unwrap();
        let differs = gpu.iter().zip(&cpu).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{what}");
    }
}

pub fn read(device: &mut dyn Device, view: View, len: usize) -> Vec<f32> {
    let mut bytes = vec![0u8; len * 4];
    device.read(view.buffer, view.offset, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
