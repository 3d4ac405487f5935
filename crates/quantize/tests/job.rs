//! Whole files: what is written, and that nothing is where something goes wrong.

#![allow(clippy::unwrap_used)]

use gguf::{GgufWriter, Value};
use quant::GgmlType;
use quantize::{Imatrix, Job, Mix, QuantizeError, Report};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use test_models::ModelSpec;
use weights::{Access, ModelFile};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/rustdoc-tiny-F16.gguf")
}

fn run(input: &Path, output: &Path, mix: Mix) -> Result<Report, QuantizeError> {
    Job::open(input, mix, None)?.run(output, 2, &mut |_| {}, &|| false)
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A GGUF file with these F32 tensors.
fn write(path: &Path, keys: &[(&str, Value)], tensors: &[(&str, &[u64], Vec<f32>)]) {
    let mut writer = GgufWriter::new();
    for (key, value) in keys {
        writer.set(key, value.clone()).unwrap();
    }
    for (name, shape, _) in tensors {
        writer.tensor(name, GgmlType::F32, shape).unwrap();
    }
    let mut out = writer.start(std::fs::File::create(path).unwrap()).unwrap();
    for (_, _, values) in tensors {
        out.write(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    }
    out.finish().unwrap().flush().unwrap();
}

#[test]
fn rows_metadata_and_progress() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let job = Job::open(&fixture(), Mix::Q8_0, None).unwrap();
    let mut last = 0;
    let mut progress = |progress: quantize::Progress<'_>| {
        assert!(progress.done > last && progress.done <= progress.total);
        last = progress.done;
    };
    let report = job.run(&output, 3, &mut progress, &|| false).unwrap();
    assert_eq!(names(&folder), ["out.gguf"]);
    let (before, after) =
        (ModelFile::open(&fixture(), Access::Map).unwrap(), ModelFile::open(&output, Access::Map).unwrap());
    assert_eq!(last, before.gguf().tensor_bytes());
    assert_eq!((report.bytes, report.bytes), (after.gguf().file_len, std::fs::metadata(&output).unwrap().len()));
    assert_eq!(after.gguf().metadata.u64("general.file_type"), Some(7));
    assert_eq!(after.gguf().metadata.u64("general.quantization_version"), Some(2));
    for (key, value) in before.gguf().metadata.iter().filter(|(key, _)| *key != "general.file_type") {
        assert_eq!(after.gguf().metadata.get(key), Some(value), "{key}");
    }
    for name in ["blk.3.ffn_down.weight", "output_norm.weight"] {
        let (before, after) = (before.view(name).unwrap(), after.view(name).unwrap());
        let columns = before.shape[0] as usize;
        let mut values = vec![0f32; columns];
        let mut packed = vec![0; after.ty.row_bytes(columns).unwrap()];
        let rows = before.bytes.chunks_exact(before.ty.row_bytes(columns).unwrap());
        for (row, expected) in rows.zip(after.bytes.chunks_exact(packed.len())) {
            quant::dequantize_row(before.ty, row, &mut values).unwrap();
            quant::quantize_row(after.ty, &values, None, &mut packed).unwrap();
            assert_eq!(packed, expected, "{name}");
        }
    }
}

#[test]
fn threads_change_nothing_and_quantizing_again_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    run(&fixture(), &path("a.gguf"), Mix::Q4_0).unwrap();
    Job::open(&fixture(), Mix::Q4_0, None).unwrap().run(&path("b.gguf"), 7, &mut |_| {}, &|| false).unwrap();
    assert_eq!(std::fs::read(path("a.gguf")).unwrap(), std::fs::read(path("b.gguf")).unwrap());
    let again = Job::open(&path("a.gguf"), Mix::Q2_K, None).unwrap();
    assert!(again.plan().steps.iter().any(|step| step.requantizes()));
    // What is there may be replaced, but not by what is made from it.
    again.run(&path("b.gguf"), 2, &mut |_| {}, &|| false).unwrap();
    let itself = again.run(&path("a.gguf"), 2, &mut |_| {}, &|| false);
    assert!(matches!(itself, Err(QuantizeError::SameFile { .. })));
}

#[test]
fn cancelling_at_any_moment_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::open(&fixture(), Mix::Q8_0, None).unwrap();
    for wait in [0, 1, 20, 90] {
        let asked = AtomicUsize::new(0);
        let result =
            job.run(&folder.path().join("m.gguf"), 2, &mut |_| {}, &|| asked.fetch_add(1, Ordering::Relaxed) >= wait);
        assert!(matches!(result, Err(QuantizeError::Cancelled)), "{wait}");
        assert_eq!(names(&folder), Vec::<String>::new(), "{wait}");
    }
}

#[test]
fn damaged_input_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.gguf"), folder.path().join("out.gguf"));
    let architecture = [("general.architecture", Value::from("llama"))];
    for (value, mix) in [(f32::NAN, Mix::Q4_0), (f32::INFINITY, Mix::BF16), (1e6, Mix::F16)] {
        let mut values = vec![1.0; 256];
        values[77] = value;
        write(&input, &architecture, &[("a.weight", &[64, 4], values)]);
        let error = run(&input, &output, mix).err().unwrap();
        assert!(matches!(error, QuantizeError::OutOfRange { .. }), "{error}");
    }
    let whole = ModelSpec::qwen3().build();
    std::fs::write(&input, &whole[..whole.len() - 5000]).unwrap();
    let error = run(&input, &output, Mix::Q8_0).err().unwrap();
    assert!(matches!(error, QuantizeError::Input(weights::WeightsError::Truncated { .. })), "{error}");
    assert_eq!(names(&folder), ["in.gguf"]);
}

#[test]
fn parts_become_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let part = |no: u16| folder.path().join(format!("m-0000{}-of-00002.gguf", no + 1));
    for (no, name) in [(0, "a.weight"), (1, "b.weight")] {
        let split = [
            ("split.no", Value::from(no)),
            ("split.count", Value::from(2u16)),
            ("split.tensors.count", Value::from(2i32)),
            ("general.architecture", Value::from("llama")),
        ];
        write(&part(no), &split, &[(name, &[64, 2], vec![f32::from(no) + 1.0; 128])]);
    }
    run(&part(1), &output, Mix::F16).unwrap();
    let file = ModelFile::open(&output, Access::Map).unwrap();
    assert_eq!((file.gguf().tensors.len(), file.gguf().split().unwrap()), (2, None));
    assert_eq!(file.gguf().metadata.get("split.count"), None);
    for (name, value) in [("a.weight", [0, 0x3c]), ("b.weight", [0, 0x40])] {
        assert_eq!(file.view(name).unwrap().bytes, value.repeat(128), "{name}");
    }
    std::fs::remove_file(part(0)).unwrap();
    assert!(matches!(run(&part(1), &output, Mix::F16), Err(QuantizeError::Input(_))));
}

#[test]
fn importance_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.gguf"), folder.path().join("out.gguf"));
    let file = folder.path().join("im.gguf");
    let values = (0..2048).map(|x: u32| (x.wrapping_mul(2654435761) >> 16) as f32 / 65536.0 - 0.5).collect();
    let name = "blk.0.ffn_up_exps.weight";
    write(&input, &[("general.architecture", "llama".into())], &[(name, &[256, 4, 2], values)]);
    let imatrix = |sums: Vec<f32>, counts: &[f32]| {
        let kind = [("general.type", Value::from("imatrix")), ("imatrix.chunk_count", Value::from(3u32))];
        let shape = [256, sums.len() as u64 / 256];
        let tensors = [
            ("blk.0.ffn_up_exps.weight.in_sum2", &shape[..], sums),
            ("blk.0.ffn_up_exps.weight.counts", &[1, counts.len() as u64][..], counts.to_vec()),
        ];
        write(&file, &kind, &tensors);
        Imatrix::open(&file)
    };
    let quantize = |imatrix: &Imatrix| -> Result<Vec<u8>, QuantizeError> {
        Job::open(&input, Mix::IQ2_XXS, Some(imatrix))?.run(&output, 2, &mut |_| {}, &|| false)?;
        let file = ModelFile::open(&output, Access::Map).unwrap();
        assert_eq!(file.gguf().metadata.u64("quantize.imatrix.chunks_count"), Some(3));
        assert_eq!(file.gguf().metadata.str("quantize.imatrix.file"), Some("im.gguf"));
        Ok(file.view(name).unwrap().bytes.to_vec())
    };
    assert!(matches!(run(&input, &output, Mix::IQ2_XXS), Err(QuantizeError::ImportanceNeeded { .. })));
    let ramp = |from: u32| (from..from + 256).map(|x| x as f32 * 10.0).collect::<Vec<f32>>();
    let whole = quantize(&imatrix([ramp(1), ramp(500)].concat(), &[10.0, 10.0]).unwrap()).unwrap();
    // The second expert was never chosen: the first is as before.
    let half = quantize(&imatrix([ramp(1), vec![0.0; 256]].concat(), &[10.0, 0.0]).unwrap()).unwrap();
    let (first, second) = (whole.split_at(whole.len() / 2), half.split_at(half.len() / 2));
    assert!(first.0 == second.0 && first.1 != second.1);

    let other = imatrix(ramp(1), &[1.0]).unwrap();
    assert!(matches!(quantize(&other), Err(QuantizeError::ImportanceLength { expected: 512, found: 256, .. })));
    for bad in [imatrix(vec![f32::NAN; 512], &[1.0; 2]), imatrix(vec![1.0; 512], &[1.0; 3]), Imatrix::open(&input)] {
        assert!(matches!(bad, Err(QuantizeError::BadImportance { .. })));
    }
}
