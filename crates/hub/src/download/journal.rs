//! What is known to be on the disk of an unfinished file.
//!
//! A small JSON file beside the part file, replaced atomically, and only after the bytes that it names are flushed. So
//! after a kill or a power cut it never claims too much; at most the last second of the download is fetched again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::disk::replace_file;
use super::ranges::RangeSet;
use crate::RepoFile;

/// A journal has one range per lane or so; more than this is not ours.
const MAX_JOURNAL: u64 = 1 << 20;

/// Which bytes a part file holds; a journal of anything else is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub repo: String,
    pub commit: String,
    pub file: RepoFile,
    pub etag: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    identity: Identity,
    /// Half-open.
    ranges: Vec<(u64, u64)>,
}

/// Writes the journal so that either the old or the new one is there afterwards, whole.
pub(crate) fn save(path: &Path, identity: &Identity, ranges: &RangeSet) -> io::Result<()> {
    write_json(path, &Record { identity: identity.clone(), ranges: ranges.pairs().to_vec() })
}

/// The ranges that the journal at `path` vouches for, and the ETag they were fetched under; nothing if it is missing,
/// damaged or of another file than `wanted` (whose ETag is not compared). `part_len` is the part file's length: what
/// lies beyond cannot be there.
pub(crate) fn load(path: &Path, wanted: &Identity, part_len: u64) -> (RangeSet, Option<String>) {
    let Some(record) = read_json::<Record>(path) else { return Default::default() };
    let Identity { repo, commit, file, etag } = record.identity;
    // A file with a hash is the same under every commit that names it.
    let same_bytes = commit == wanted.commit || file.sha256.is_some();
    if (&repo, &file) != (&wanted.repo, &wanted.file) || !same_bytes {
        return Default::default();
    }
    let mut ranges = RangeSet::from_pairs(&record.ranges);
    ranges.truncate(part_len.min(file.size));
    (ranges, etag)
}

/// Writes `value` to a new file, flushes it and puts it in the place of `path`.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    drop(file);
    replace_file(&new, path)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_JOURNAL).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn identity(commit: &str) -> Identity {
        let file = RepoFile { path: "m.gguf".into(), size: 100, sha256: None };
        Identity { repo: "a/b".into(), commit: commit.into(), file, etag: Some("e".into()) }
    }

    #[test]
    fn is_believed_only_for_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.journal");
        assert_eq!(load(&path, &identity("c"), 100), (RangeSet::default(), None));
        save(&path, &identity("c"), &RangeSet::from_pairs(&[(0, 10), (20, 90)])).unwrap();
        let (ranges, etag) = load(&path, &identity("c"), 100);
        assert_eq!((ranges.pairs(), etag.as_deref()), (&[(0, 10), (20, 90)][..], Some("e")));
        assert_eq!(load(&path, &identity("d"), 100).0.total(), 0, "another commit");
        let hashed = |commit: &str, sha256: &str| {
            let file = RepoFile { sha256: Some(sha256.into()), ..identity(commit).file };
            Identity { file, ..identity(commit) }
        };
        let other = folder.path().join("1.journal");
        save(&other, &hashed("c", "1"), &RangeSet::from_pairs(&[(0, 10)])).unwrap();
        assert_eq!(load(&other, &hashed("d", "1"), 100).0.total(), 10, "the same bytes under another commit");
        assert_eq!(load(&other, &hashed("c", "2"), 100).0.total(), 0, "other bytes");
        assert_eq!(load(&other, &identity("c"), 100).0.total(), 0, "no longer known to be the same");
        assert_eq!(load(&path, &identity("c"), 50).0.pairs(), &[(0, 10), (20, 50)], "a shorter part file");
        assert_eq!(load(&path, &identity("c"), 0).0.total(), 0);
    }

    #[test]
    fn a_damaged_journal_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.journal");
        save(&path, &identity("c"), &RangeSet::from_pairs(&[(0, 10)])).unwrap();
        let good = fs::read(&path).unwrap();
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            assert_eq!(load(&path, &identity("c"), 100).0.total(), 0, "cut at {len}");
        }
        let hostile = String::from_utf8(good).unwrap().replace("[0,10]", "[90,18446744073709551615],[50,40],[95,200]");
        fs::write(&path, hostile).unwrap();
        assert_eq!(load(&path, &identity("c"), 100).0.pairs(), &[(90, 100)]);
    }
}
