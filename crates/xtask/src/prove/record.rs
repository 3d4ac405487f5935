//! What was proven already, and of which texts: so that a proof which was interrupted goes on where it ended.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file with a line for everything that is done: part, what it was, and the stamp of its texts.
pub struct Record {
    file: Mutex<File>,
    done: Mutex<BTreeSet<String>>,
}

impl Record {
    /// Of the parts for which `kept` holds, what is there already; other lines are forgotten, also one without an end, which
    /// was being written when the last run ended.
    pub fn open(path: &Path, kept: impl Fn(&str) -> bool) -> Result<Record> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let done: BTreeSet<String> =
            lines.filter(|line| kept(line.split('\t').next().unwrap_or_default())).map(String::from).collect();
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, done.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        let file = File::options().append(true).open(path).with_context(|| path.display().to_string())?;
        Ok(Record { file: Mutex::new(file), done: Mutex::new(done) })
    }

    pub fn has(&self, line: &str) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(line)
    }

    pub fn add(&self, line: &str) -> Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(format!("{line}\n").as_bytes())?;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(line.into());
        Ok(())
    }
}

/// A number that is another one when any of these texts is.
pub fn stamp(texts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hasher = DefaultHasher::new();
    texts.into_iter().for_each(|text| text.as_ref().hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

/// What is in the files of a folder, and in the folders in it, in the order of their names.
pub fn texts(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => found.extend(texts(&path)?),
            false => found.push(std::fs::read(&path)?),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of its own for a test, which is gone at its end.
    struct Place(PathBuf);
    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("headroom-record-{}-{name}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            Place(path)
        }
    }
    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_was_done_is_known_to_the_next_run_for_the_same_texts() {
        let place = Place::new("next");
        let line = |text: &str| format!("ptx\ta::b\t{}", stamp([text]));
        let first = Record::open(&place.0, |_| true).unwrap();
        assert!(!first.has(&line("one")));
        first.add(&line("one")).unwrap();
        assert!(first.has(&line("one")));
        let next = Record::open(&place.0, |_| true).unwrap();
        assert!(next.has(&line("one")) && !next.has(&line("two")));
    }

    #[test]
    fn parts_are_forgotten_alone() {
        let place = Place::new("parts");
        let first = Record::open(&place.0, |_| true).unwrap();
        first.add("ptx\ta").unwrap();
        first.add("mutants\ta").unwrap();
        let next = Record::open(&place.0, |part| part != "mutants").unwrap();
        assert!(next.has("ptx\ta") && !next.has("mutants\ta"));
        // Not only in memory.
        assert!(!Record::open(&place.0, |_| true).unwrap().has("mutants\ta"));
    }

    #[test]
    fn a_line_that_was_being_written_does_not_count() {
        let place = Place::new("torn");
        std::fs::write(&place.0, "ptx\ta\nptx\tb").unwrap();
        let record = Record::open(&place.0, |_| true).unwrap();
        assert!(record.has("ptx\ta") && !record.has("ptx\tb"));
        record.add("ptx\tc").unwrap();
        let next = Record::open(&place.0, |_| true).unwrap();
        assert!(next.has("ptx\ta") && next.has("ptx\tc"), "it is no part of the next line");
    }

    #[test]
    fn stamps_tell_texts_and_their_ends() {
        assert_eq!(stamp(["a", "b"]), stamp(["a", "b"]));
        for other in [["a", "c"], ["ab", ""], ["b", "a"]] {
            assert_ne!(stamp(["a", "b"]), stamp(other), "{other:?}");
        }
    }
}
