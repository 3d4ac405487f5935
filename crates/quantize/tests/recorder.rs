//! What a recording device adds up, against sums made by hand.

#![allow(clippy::unwrap_used)]

use backend::{BufferId, Device, HostBytes, Linear, Op, View, Weight};
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use quant::GgmlType::F32;
use quantize::{Imatrix, Measurement, Recorder};
use std::sync::Arc;
use weights::{Access, ModelFile};

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn buffer(device: &mut Recorder, bytes: &[u8]) -> View {
    let buffer = device.allocate(bytes.len() as u64).unwrap();
    device.write(buffer, 0, bytes).unwrap();
    View::new(buffer)
}

/// `matrices` of 2 x 4 ones, and where they lie.
fn weight(device: &mut Recorder, matrices: usize) -> (Weight, usize) {
    let values: HostBytes = Arc::new(bytes(&vec![1.0; 8 * matrices]));
    let address = (*values).as_ref().as_ptr() as usize;
    let buffer: BufferId = device.adopt(values).unwrap();
    (Weight { buffer, offset: 0, ty: F32, rows: 2, cols: 4 }, address)
}

#[test]
fn squares_are_summed_for_each_matrix() {
    let config = CpuConfig { threads: 1, precision: Precision::Exact, simd: None };
    let cpu = CpuDevice::new(Arc::new(ThreadPool::new(1)), config);
    let (mut device, measured) = Recorder::new(Box::new(cpu));
    let (dense, dense_address) = weight(&mut device, 1);
    let (experts, experts_address) = weight(&mut device, 3);
    let input = buffer(&mut device, &bytes(&[1.0, 2.0, 3.0, 4.0, -1.0, 0.0, 0.5, 2.0]));
    let out = buffer(&mut device, &[0; 64]);
    let product = Linear { weight: dense, bias: None, scale: 1.0, out };
    device.run(&Op::MatMul { input, n: 2, products: &[product] }).unwrap();
    let mut result = [0; 16];
    device.read(out.buffer, 0, &mut result).unwrap();
    assert_eq!(result.to_vec(), bytes(&[10.0, 10.0, 1.5, 1.5]), "computed as without recording");

    // Two tokens with two experts each; nobody chooses expert 1.
    let ids = buffer(&mut device, &[2u32, 0, 2, 0].map(u32::to_le_bytes).concat());
    let common = Op::ExpertMatMul {
        input,
        input_per_slot: false,
        n: 2,
        ids,
        used: 2,
        experts: 3,
        weight: experts,
        bias: None,
        scales: None,
        out,
    };
    device.run(&common).unwrap();
    let per_slot = Op::ExpertMatMul {
        input,
        input_per_slot: true,
        n: 1,
        ids,
        used: 2,
        experts: 3,
        weight: experts,
        bias: None,
        scales: None,
        out,
    };
    device.run(&per_slot).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("im.gguf");
    let name = |address| match address {
        address if address == dense_address => Some("dense".to_owned()),
        address if address == experts_address => Some("experts".to_owned()),
        _ => None,
    };
    let about = Measurement { dataset: "text.txt", chunks: 5, chunk_tokens: 512 };
    assert_eq!(measured.save(&path, about, &name).unwrap(), 2);
    let file = ModelFile::open(&path, Access::Map).unwrap();
    let values = |name: &str| file.view(name).unwrap().bytes.to_vec();
    assert_eq!(values("dense.in_sum2"), bytes(&[2.0, 4.0, 9.25, 20.0]));
    assert_eq!(values("dense.counts"), bytes(&[2.0]));
    // Expert 0: both tokens, and the second slot; expert 2: both, and the first.
    let sums = [3.0, 4.0, 9.5, 24.0, 0.0, 0.0, 0.0, 0.0, 3.0, 8.0, 18.25, 36.0];
    assert_eq!(values("experts.in_sum2"), bytes(&sums));
    assert_eq!(values("experts.counts"), bytes(&[3.0, 0.0, 3.0]));
    assert_eq!(file.gguf().tensor("experts.in_sum2").unwrap().shape, [4, 3]);
    assert_eq!(file.gguf().metadata.u64("imatrix.chunk_count"), Some(5));
    assert_eq!(Imatrix::open(&path).unwrap().len(), 2);
}
