//! Models in several files.

#![allow(clippy::unwrap_used)]

use gguf::{Gguf, GgufError, GgufWriter, Split, merge_splits, split_file_names};
use quant::GgmlType;

/// Part `no` of `count`, with these tensors of 4 elements; `total` is what it says of all parts.
fn part(no: u16, count: u16, total: i32, tensors: &[&str]) -> Gguf {
    let mut writer = GgufWriter::new();
    if no == 0 {
        writer.set("general.architecture", "llama").unwrap();
    }
    writer.set("split.no", no).unwrap().set("split.count", count).unwrap().set("split.tensors.count", total).unwrap();
    for name in tensors {
        writer.tensor(name, GgmlType::F32, &[4]).unwrap();
    }
    let (header, len) = (writer.header().unwrap(), writer.file_len().unwrap());
    Gguf::parse(&header, len).unwrap()
}

#[test]
fn parts_merge_in_any_order() {
    let parts = || vec![part(0, 3, 4, &["a"]), part(1, 3, 4, &["b", "c"]), part(2, 3, 4, &["d"])];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let merged = merge_splits(order.map(|i| parts()[i].clone()).into()).unwrap();
        let tensors: Vec<_> = merged.tensors.iter().map(|t| (t.name.as_str(), t.shard)).collect();
        assert_eq!(tensors, [("a", 0), ("b", 1), ("c", 1), ("d", 2)]);
        assert_eq!(merged.architecture(), Some("llama"));
        assert_eq!(merged.file_len, parts().iter().map(|part| part.file_len).sum::<u64>());
        assert_eq!(merged.tensor("c").unwrap().offset, parts()[1].tensor("c").unwrap().offset);
    }
    assert_eq!(parts()[1].split().unwrap(), Some(Split { no: 1, count: 3, tensors: Some(4) }));
}

#[test]
fn a_single_file_is_its_own_merge() {
    let single = part(0, 1, 1, &["a"]);
    assert_eq!(single.split().unwrap(), None);
    assert_eq!(merge_splits(vec![single.clone()]).unwrap(), single);
    assert_eq!(merge_splits(vec![single.clone(), single]), Err(GgufError::NotSplit { given: 2 }));
    assert_eq!(merge_splits(vec![]), Err(GgufError::NotSplit { given: 0 }));
}

#[test]
fn inconsistent_parts_are_refused() {
    let first = || part(0, 2, 2, &["a"]);
    let merge = |second: Gguf| merge_splits(vec![first(), second]).unwrap_err();
    assert_eq!(merge_splits(vec![first()]).unwrap_err(), GgufError::MissingSplit { no: 1, count: 2 });
    assert_eq!(merge(first()), GgufError::DuplicateSplit { no: 0 });
    assert_eq!(merge(part(1, 2, 2, &["a"])), GgufError::DuplicateTensor("a".into()));
    assert!(matches!(merge(part(1, 3, 2, &["b"])), GgufError::SplitMismatch { key: "split.count", .. }));
    assert!(matches!(merge(part(1, 2, 9, &["b"])), GgufError::SplitMismatch { key: "split.tensors.count", .. }));
    assert!(matches!(merge(part(1, 2, 2, &["b", "c"])), GgufError::SplitMismatch { expected: 2, found: 3, .. }));
    assert_eq!(merge(part(5, 2, 2, &["b"])), GgufError::SplitOutOfRange { no: 5, count: 2 });
    assert_eq!(merge(part(0, 1, 1, &["b"])), GgufError::NotSplit { given: 2 });
    assert!(matches!(part(0, 2000, 2, &["a"]).split(), Err(GgufError::TooManySplits { count: 2000, .. })));
}

#[test]
fn names_of_parts() {
    let names = split_file_names("Q4/Model-7B-00002-of-00003.gguf").unwrap();
    let expected: Vec<String> = (1..=3).map(|no| format!("Q4/Model-7B-{no:05}-of-00003.gguf")).collect();
    assert_eq!(names, expected);
    for no in [
        "model.gguf",
        "-00001-of-00002.gguf",
        "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf",
        "m-1-of-2.gguf",
        "m-00001-of-00002.bin",
        "m-00001-of-99999.gguf",
        "m-+0001-of-00002.gguf",
        "モデル",
        "",
    ] {
        assert_eq!(split_file_names(no), None, "{no}");
    }
    assert_eq!(split_file_names("モデル-00001-of-00001.gguf").unwrap(), ["モデル-00001-of-00001.gguf"]);
}
