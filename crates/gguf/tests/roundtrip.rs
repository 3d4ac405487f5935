//! What is written is read back, from the whole file or piece by piece.

#![allow(clippy::unwrap_used)]

use gguf::{Array, Gguf, GgufError, GgufWriter, MAX_DIMS, Strings, Value, ValueType};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use quant::GgmlType;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        vec(any::<u8>(), 0..20).prop_map(Value::String),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        vec(any::<f32>(), 0..9).prop_map(|x| Array::from(x.as_slice())),
        vec(any::<i32>(), 0..9).prop_map(|x| Array::from(x.as_slice())),
        vec(any::<u64>(), 0..9).prop_map(|x| Array::from(x.as_slice())),
        vec(any::<i8>(), 0..9).prop_map(|x| Array::from(x.as_slice())),
        vec(0..=1u8, 0..9).prop_map(|bytes| Array::Scalars { ty: ValueType::Bool, bytes }),
        vec(vec(any::<u8>(), 0..9), 0..9).prop_map(|x| Array::Strings(Strings::from_iter(x))),
    ];
    flat.prop_recursive(3, 20, 4, |inner| vec(inner, 0..4).prop_map(Array::Arrays))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![3 => scalar(), 1 => array().prop_map(Value::Array)]
}

/// A type and a shape of whole blocks, small enough to write.
fn tensor() -> impl Strategy<Value = (GgmlType, Vec<u64>)> {
    let types: Vec<GgmlType> = GgmlType::all().collect();
    (prop::sample::select(types), 1..3u64, vec(1..4u64, 0..MAX_DIMS)).prop_map(|(ty, blocks, rest)| {
        let mut shape = vec![blocks * ty.block_size() as u64];
        shape.extend(rest);
        (ty, shape)
    })
}

#[derive(Debug)]
struct Model {
    version: u32,
    alignment: Option<u32>,
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, GgmlType, Vec<u64>)>,
}

fn model() -> impl Strategy<Value = Model> {
    (
        2..=3u32,
        prop::option::of((3..9u32).prop_map(|log| 1 << log)),
        hash_map("[a-z.]{1,12}", value(), 0..8),
        hash_map("[a-z0-9._]{1,20}", tensor(), 0..8),
    )
        .prop_map(|(version, alignment, metadata, tensors)| Model {
            version,
            alignment,
            metadata: metadata.into_iter().collect(),
            tensors: tensors.into_iter().map(|(name, (ty, shape))| (name, ty, shape)).collect(),
        })
}

fn data(index: usize, len: u64) -> Vec<u8> {
    (0..len).map(|i| (i as usize * 7 + index * 31) as u8).collect()
}

fn write(model: &Model) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.version(model.version).unwrap();
    if let Some(alignment) = model.alignment {
        writer.alignment(alignment).unwrap();
    }
    for (key, value) in &model.metadata {
        writer.set(key, value.clone()).unwrap();
    }
    for (name, ty, shape) in &model.tensors {
        writer.tensor(name, *ty, shape).unwrap();
    }
    let header = writer.header().unwrap();
    let mut out = writer.start(Vec::new()).unwrap();
    for (index, (_, ty, shape)) in model.tensors.iter().enumerate() {
        let bytes = ty.row_bytes(shape[0] as usize).unwrap() as u64 * shape[1..].iter().product::<u64>();
        let data = data(index, bytes);
        let (front, back) = data.split_at(data.len() / 3);
        out.write(front).unwrap();
        out.write(back).unwrap();
    }
    let file = out.finish().unwrap();
    assert!(file.starts_with(&header));
    assert_eq!(file.len() as u64, writer.file_len().unwrap());
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn written_models_are_read_back(model in model()) {
        let file = write(&model);
        let gguf = Gguf::parse(&file, file.len() as u64).unwrap();
        prop_assert_eq!(gguf.version, model.version);
        prop_assert_eq!(gguf.alignment, model.alignment.map_or(32, u64::from));
        prop_assert_eq!(gguf.tensors.len(), model.tensors.len());
        for (index, (name, ty, shape)) in model.tensors.iter().enumerate() {
            let tensor = gguf.tensor(name).unwrap();
            prop_assert_eq!((&tensor.name, tensor.ty, &tensor.shape), (name, *ty, shape));
            prop_assert_eq!(tensor.offset % gguf.alignment, 0);
            prop_assert_eq!(&file[tensor.offset as usize..tensor.end() as usize], data(index, tensor.bytes));
        }
        // Floats may be NaN, so the metadata is compared by writing it again.
        let again = Model {
            metadata: gguf.metadata.iter().filter(|(key, _)| *key != "general.alignment")
                .map(|(key, value)| (key.to_owned(), value.clone())).collect(),
            ..model
        };
        prop_assert_eq!(write(&again), file);
    }

    #[test]
    fn a_prefix_asks_for_more_until_it_has_the_header(model in model()) {
        let file = write(&model);
        let whole = Gguf::parse(&file, file.len() as u64).unwrap();
        let mut have = 0;
        loop {
            match Gguf::parse(&file[..have], file.len() as u64) {
                Ok(gguf) => {
                    prop_assert_eq!(gguf.tensors, whole.tensors);
                    break;
                }
                Err(GgufError::Incomplete { needed_at_least }) => {
                    prop_assert!(needed_at_least > have as u64, "{} after {}", needed_at_least, have);
                    prop_assert!(needed_at_least <= whole.data_offset);
                    have = needed_at_least as usize;
                }
                Err(other) => return Err(TestCaseError::fail(format!("{have}: {other}"))),
            }
        }
    }
}

#[test]
fn getters_accept_every_fitting_number() {
    let mut writer = GgufWriter::new();
    writer.set("a", 7u8).unwrap().set("b", 7i64).unwrap().set("c", 7f32).unwrap().set("d", -1i32).unwrap();
    writer.set("e", 0.5f64).unwrap().set("f", u64::MAX).unwrap().set("g", true).unwrap().set("h", "text").unwrap();
    writer.set("i", Value::String(b"\xff!".to_vec())).unwrap().set("j", f32::INFINITY).unwrap();
    writer.set("k", [1i8, -1, 3].as_slice()).unwrap().set("l", [true, false].as_slice()).unwrap();
    let file = writer.start(Vec::new()).unwrap().finish().unwrap();
    let metadata = Gguf::parse(&file, file.len() as u64).unwrap().metadata;
    for key in ["a", "b", "c"] {
        assert_eq!((metadata.u64(key), metadata.i64(key), metadata.f32(key)), (Some(7), Some(7), Some(7.0)), "{key}");
    }
    assert_eq!((metadata.u64("d"), metadata.i64("d"), metadata.f32("d")), (None, Some(-1), Some(-1.0)));
    assert_eq!((metadata.u64("e"), metadata.f32("e")), (None, Some(0.5)));
    assert_eq!((metadata.u64("f"), metadata.i64("f")), (Some(u64::MAX), None));
    assert_eq!((metadata.bool("g"), metadata.u64("g"), metadata.bool("a")), (Some(true), None, None));
    assert_eq!((metadata.str("h"), metadata.bytes("h")), (Some("text"), Some(b"text".as_slice())));
    assert_eq!((metadata.str("i"), metadata.bytes("i")), (None, Some(b"\xff!".as_slice())));
    assert_eq!(metadata.str_lossy("i").unwrap(), "\u{fffd}!");
    assert_eq!((metadata.u64("j"), metadata.f32("j")), (None, Some(f32::INFINITY)));
    let k = metadata.array("k").unwrap();
    assert_eq!((k.i32s(), k.f32s()), (Some(vec![1, -1, 3]), Some(vec![1.0, -1.0, 3.0])));
    assert_eq!((k.u64s(), k.bools(), k.strings()), (None, None, None));
    assert_eq!(metadata.array("l").unwrap().bools(), Some(vec![true, false]));
    assert_eq!((metadata.get("z"), metadata.array("a")), (None, None));
    assert_eq!(metadata.iter().map(|(key, _)| key).collect::<String>(), "abcdefghijkl");
}

#[test]
fn a_large_vocabulary_keeps_its_bytes() {
    let token = |i: u32| [i.to_le_bytes().as_slice(), b"\xf0\x9f".repeat(i as usize % 4).as_slice()].concat();
    let tokens = Strings::from_iter((0..262_144).map(token));
    let mut writer = GgufWriter::new();
    writer.set("tokenizer.ggml.tokens", tokens.clone()).unwrap();
    let file = writer.start(Vec::new()).unwrap().finish().unwrap();
    let gguf = Gguf::parse(&file, file.len() as u64).unwrap();
    let read = gguf.metadata.array("tokenizer.ggml.tokens").unwrap().strings().unwrap();
    assert_eq!(read, &tokens);
    assert_eq!((read.len(), read.get(262_143)), (262_144, Some(token(262_143).as_slice())));
    assert_eq!((read.get(262_144), read.iter().len()), (None, 262_144));
}

#[test]
fn the_writer_refuses_what_could_not_be_read() {
    let mut writer = GgufWriter::new();
    writer.set("key", 1u8).unwrap();
    assert_eq!(writer.set("key", 2u8).err(), Some(GgufError::DuplicateKey("key".into())));
    for alignment in [0, 1, 4, 24, 1 << 30] {
        assert!(matches!(writer.alignment(alignment), Err(GgufError::BadAlignment(_))), "{alignment}");
    }
    assert!(matches!(writer.version(1), Err(GgufError::UnsupportedVersion(1))));
    assert!(matches!(writer.tensor("t", GgmlType::Q4_0, &[31]), Err(GgufError::BadShape { .. })));
    writer.tensor("t", GgmlType::F32, &[4]).unwrap();

    let mut out = writer.start(Vec::new()).unwrap();
    out.write(&[0; 10]).unwrap();
    let too_long = GgufError::WrongTensorSize { name: "t".into(), expected: 16, given: 17 };
    assert_eq!(out.write(&[0; 7]), Err(too_long));
    assert!(matches!(out.finish(), Err(GgufError::WrongTensorSize { given: 10, .. })));

    writer.tensor("t", GgmlType::F32, &[4]).unwrap();
    assert!(matches!(writer.start(Vec::new()), Err(GgufError::DuplicateTensor(_))));
}

#[test]
fn a_full_disk_is_reported_as_such() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = GgufWriter::new().start(Full).err();
    assert!(matches!(error, Some(GgufError::Io { kind: std::io::ErrorKind::StorageFull, .. })), "{error:?}");
}
