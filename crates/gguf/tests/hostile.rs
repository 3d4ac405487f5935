//! Headers made to break a parser, byte by byte. A count that is believed would end the test by an impossible allocation.

#![allow(clippy::unwrap_used)]

use gguf::{Gguf, GgufError};

/// Little-endian bytes, piece by piece.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend(bytes);
        self
    }
    fn u32(self, x: u32) -> Bytes {
        self.raw(&x.to_le_bytes())
    }
    fn u64(self, x: u64) -> Bytes {
        self.raw(&x.to_le_bytes())
    }
    fn string(self, s: &str) -> Bytes {
        self.u64(s.len() as u64).raw(s.as_bytes())
    }
    /// A tensor record of two dimensions.
    fn tensor(self, name: &str, shape: [u64; 2], ty: u32, offset: u64) -> Bytes {
        self.string(name).u32(2).u64(shape[0]).u64(shape[1]).u32(ty).u64(offset)
    }
    /// Pads to the data and appends `len` bytes of it.
    fn data(mut self, len: usize) -> Bytes {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }
    fn parse(&self) -> Result<Gguf, GgufError> {
        Gguf::parse(&self.0, self.0.len() as u64)
    }
    fn error(&self) -> GgufError {
        self.parse().unwrap_err()
    }
    /// The error when the file is said to be far longer than what is given.
    fn error_of_prefix(&self) -> GgufError {
        Gguf::parse(&self.0, 1 << 50).unwrap_err()
    }
}

fn header(tensors: u64, keys: u64) -> Bytes {
    Bytes::default().raw(b"GGUF").u32(3).u64(tensors).u64(keys)
}

/// A header of one key, up to the value's type.
fn key(name: &str) -> Bytes {
    header(0, 1).string(name)
}

const U32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const F32: u32 = 0;
const Q4_0: u32 = 2;

#[test]
fn other_formats_and_versions_are_refused_by_name() {
    assert_eq!(Bytes::default().raw(b"ggjt\x03\0\0\0").error(), GgufError::NotGguf { magic: *b"ggjt" });
    let version = |v: u32| Bytes::default().raw(b"GGUF").u32(v).u64(0).u64(0).error();
    assert_eq!(version(1), GgufError::Version1);
    assert_eq!(version(3u32.swap_bytes()), GgufError::BigEndian);
    assert_eq!(version(2u32.swap_bytes()), GgufError::BigEndian);
    assert_eq!(version(0), GgufError::UnsupportedVersion(0));
    assert_eq!(version(4), GgufError::UnsupportedVersion(4));
    for good in [2, 3] {
        assert!(Bytes::default().raw(b"GGUF").u32(good).u64(0).u64(0).parse().is_ok());
    }
}

#[test]
fn counts_are_not_believed() {
    for count in [1 << 63, u64::MAX, 1 << 40, 1 << 20] {
        for bytes in [header(count, 0), header(0, count)] {
            assert!(matches!(bytes.error(), GgufError::TooMany { .. }), "{count}");
            assert!(matches!(bytes.error_of_prefix(), GgufError::TooMany { .. }), "{count}");
        }
    }
    // Few enough to be allowed, too many for the file; and a prefix asks for what they need at least.
    for bytes in [header(100_000, 0), header(0, 60_000)] {
        assert!(matches!(bytes.error(), GgufError::Truncated { .. }));
        let needed = |e| matches!(e, GgufError::Incomplete { needed_at_least } if needed_at_least > 700_000);
        assert!(needed(bytes.error_of_prefix()));
    }
}

#[test]
fn lengths_beyond_the_file_are_refused() {
    for len in [100, 1 << 31, 1 << 63, u64::MAX, u64::MAX - 40] {
        let string = key("k").u32(STRING).u64(len);
        assert!(matches!(string.error(), GgufError::Truncated { .. }), "{len}");
        for element in [0, U32, STRING, 10] {
            let array = key("k").u32(ARRAY).u32(element).u64(len);
            assert!(matches!(array.error(), GgufError::Truncated { .. }), "{len} {element}");
        }
        let name = header(0, 1).u64(len).raw(&[0; 5]);
        assert!(matches!(name.error(), GgufError::NameTooLong { .. } | GgufError::Truncated { .. }), "{len}");
        let tensor = header(1, 0).u64(len).raw(&[0; 16]);
        assert!(matches!(tensor.error(), GgufError::NameTooLong { .. } | GgufError::Truncated { .. }), "{len}");
    }
    // A longer file may really hold it, but nobody downloads gigabytes of header.
    for (ty, len) in [(STRING, 1u64 << 40), (STRING, 200 << 20)] {
        assert!(matches!(key("k").u32(ty).u64(len).error_of_prefix(), GgufError::HeaderTooLarge { .. }));
    }
    let large = key("k").u32(STRING).u64(1 << 20);
    assert_eq!(large.error_of_prefix(), GgufError::Incomplete { needed_at_least: large.0.len() as u64 + (1 << 20) });
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let whole = key("general.name").u32(STRING).string("tiny").0;
    for len in 0..whole.len() {
        let error = Gguf::parse(&whole[..len], len as u64).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { file_len, .. } if file_len == len as u64), "{len}: {error}");
    }
    assert!(Gguf::parse(&whole, whole.len() as u64).is_ok());
}

#[test]
fn bad_metadata_is_refused() {
    assert_eq!(key("k").u32(13).u32(0).error(), GgufError::UnknownValueType { key: "k".into(), id: 13 });
    assert_eq!(key("k").u32(ARRAY).u32(99).u64(0).error(), GgufError::UnknownValueType { key: "k".into(), id: 99 });
    assert_eq!(key("k").u32(7).raw(&[2]).error(), GgufError::BadBool { key: "k".into() });
    assert_eq!(key("k").u32(ARRAY).u32(7).u64(2).raw(&[1, 7]).error(), GgufError::BadBool { key: "k".into() });
    let twice = header(0, 2).string("k").u32(U32).u32(1).string("k").u32(U32).u32(2);
    assert_eq!(twice.error(), GgufError::DuplicateKey("k".into()));
    let invalid = header(0, 1).u64(2).raw(b"\xff\xfe").u32(U32).u32(0);
    assert!(matches!(invalid.error(), GgufError::NotUtf8 { .. }));
}

#[test]
fn nested_arrays_are_bounded() {
    let nested = |levels: usize| {
        let arrays = (1..levels).fold(key("k").u32(ARRAY), |bytes, _| bytes.u32(ARRAY).u64(1));
        arrays.u32(0).u64(1).raw(&[5])
    };
    assert!(nested(4).parse().is_ok());
    for levels in [5, 10, 1000] {
        assert!(matches!(nested(levels).error(), GgufError::NestedTooDeep { limit: 4, .. }), "{levels}");
    }
    // Wide instead of deep: empty arrays cost more memory than bytes.
    let many = 100_000u64;
    let mut wide = key("k").u32(ARRAY).u32(ARRAY).u64(many);
    (0..many).for_each(|_| wide.0.extend([0; 12]));
    assert!(matches!(wide.error(), GgufError::TooMany { what: "nested arrays", .. }));
}

#[test]
fn bad_alignments_are_refused() {
    for alignment in [0, 1, 4, 31, 48, u32::MAX, 1 << 31] {
        let error = key("general.alignment").u32(U32).u32(alignment).error();
        assert!(matches!(error, GgufError::BadAlignment(_)), "{alignment}: {error}");
    }
    let text = key("general.alignment").u32(STRING).string("32");
    assert!(matches!(text.error(), GgufError::BadAlignment(_)));
    let aligned = header(1, 1).string("general.alignment").u32(U32).u32(64).tensor("t", [8, 1], F32, 32).data(128);
    assert!(matches!(aligned.error(), GgufError::MisalignedTensor { offset: 32, alignment: 64, .. }));
}

#[test]
fn impossible_shapes_are_refused() {
    let reason = |shape, ty| match header(1, 0).tensor("t", shape, ty, 0).data(64).error() {
        GgufError::BadShape { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(reason([0, 1], F32), "a dimension is zero");
    assert_eq!(reason([1, 0], F32), "a dimension is zero");
    for shape in [[1 << 32, 1 << 32], [u64::MAX, 1], [1 << 63, 1], [u64::MAX, u64::MAX]] {
        assert_eq!(reason(shape, F32), "too many elements", "{shape:?}");
    }
    assert_eq!(reason([1 << 30, 1 << 32], F32), "too many bytes");
    assert_eq!(reason([33, 2], Q4_0), "a row is not a whole number of the type's blocks");
    let dims = header(1, 0).string("t").u32(5).raw(&[1; 52]);
    assert!(matches!(dims.error(), GgufError::BadShape { .. }));
    let dims = header(1, 0).string("t").u32(u32::MAX).raw(&[1; 52]);
    assert!(matches!(dims.error(), GgufError::BadShape { .. }));
    // No dimension at all is a scalar.
    let scalar = header(1, 0).string("t").u32(0).u32(F32).u64(0).data(4).parse().unwrap();
    assert_eq!((scalar.tensors[0].shape.as_slice(), scalar.tensors[0].bytes), ([1].as_slice(), 4));
}

#[test]
fn tensors_must_lie_within_the_file_and_apart() {
    let good = |offset| header(2, 0).tensor("a", [8, 2], F32, 0).tensor("b", [32, 1], Q4_0, offset).data(64 + 18);
    assert_eq!(good(64).parse().unwrap().tensor("b").unwrap().bytes, 18);
    let overlap = GgufError::OverlappingTensors { first: "a".into(), second: "b".into() };
    assert_eq!(good(32).error(), overlap);
    for offset in [96, 1 << 40, (1 << 63) - 32, u64::MAX - 31] {
        let error = good(offset).error();
        assert!(matches!(&error, GgufError::TensorBeyondFile { name, .. } if name == "b"), "{offset}: {error}");
    }
    assert!(matches!(good(63).error(), GgufError::MisalignedTensor { .. }));
    let same = header(2, 0).tensor("a", [8, 2], F32, 0).tensor("a", [8, 2], F32, 64).data(128);
    assert_eq!(same.error(), GgufError::DuplicateTensor("a".into()));
    for id in [4, 5, 31, 36, 38, 43, u32::MAX] {
        let error = header(1, 0).tensor("t", [256, 1], id, 0).data(2048).error();
        assert_eq!(error, GgufError::UnknownTensorType { name: "t".into(), id });
    }
}
