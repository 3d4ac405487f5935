//! The file that somebody wants to see: named on our command line, or on that of a second start, which hands it over and ends.

use crate::flags::Flags;
use app::App;
use clap::Parser;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tauri::{AppHandle, Manager, Wry};

/// Holds the file until there is an app to open it: one that was quit may still keep its data when we start.
#[derive(Default)]
pub struct Asked(Mutex<Option<PathBuf>>);

/// Opens a file, if one was named, now or as soon as there is an app: then this is called again.
pub fn ask(handle: &AppHandle<Wry>, file: Option<PathBuf>) {
    let asked = handle.state::<Asked>();
    // A path is replaced whole.
    let held = || asked.0.lock().unwrap_or_else(PoisonError::into_inner);
    if file.is_some() {
        *held() = file;
    }
    let Some(app) = handle.try_state::<Arc<App>>() else { return };
    let file = held().take();
    if let Some(file) = file {
        app.open_file(file);
    }
}

pub fn by_start(flags: &Flags) -> Option<PathBuf> {
    let file = flags.file.as_ref()?;
    // Without a folder of our own the path is told as it was given.
    Some(std::path::absolute(file).unwrap_or_else(|_| file.clone()))
}

/// As the second start means it, which may have another folder. Its arguments may come from any program of this user: what
/// cannot be one of a start is no file.
pub fn by_second_start(arguments: &[String], folder: &Path) -> Option<PathBuf> {
    let file = folder.join(Flags::try_parse_from(arguments).ok()?.file?);
    // Never against our own folder.
    if !file.is_absolute() {
        return None;
    }
    std::path::absolute(file).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str], folder: &Path) -> Option<PathBuf> {
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.to_string()).collect();
        by_second_start(&arguments, folder)
    }

    #[test]
    fn a_second_start_means_files_of_its_own_folder() {
        let folder = std::path::absolute("モデル").unwrap();
        let other = std::path::absolute("other.gguf").unwrap();
        assert_eq!(asked(&["headroom", "a b.gguf"], &folder), Some(folder.join("a b.gguf")));
        assert_eq!(asked(&["headroom", "./a.gguf", "--no-gpu"], &folder), Some(folder.join("a.gguf")));
        assert_eq!(asked(&["headroom", "--", "-a.gguf"], &folder), Some(folder.join("-a.gguf")));
        assert_eq!(asked(&["headroom", other.to_str().unwrap()], &folder), Some(other));
        assert_eq!(asked(&["headroom"], &folder), None);
    }

    #[test]
    fn what_is_no_start_asks_for_nothing() {
        let folder = std::path::absolute("models").unwrap();
        let hostile: [&[&str]; 6] = [
            &[],
            &["headroom", ""],
            &["headroom", "one.gguf", "two.gguf"],
            &["headroom", "--no-such-flag", "a.gguf"],
            &["headroom", "--help"],
            &["headroom", "--data-dir"],
        ];
        for arguments in hostile {
            assert_eq!(asked(arguments, &folder), None, "{arguments:?}");
        }
        assert_eq!(asked(&["headroom", "a.gguf"], Path::new("")), None);
        assert_eq!(asked(&["headroom", "a.gguf"], Path::new("relative")), None);
    }

    #[test]
    fn a_start_means_files_of_its_folder() {
        let flags = Flags::try_parse_from(["headroom", "./a.gguf"]).unwrap();
        assert_eq!(by_start(&flags), Some(std::env::current_dir().unwrap().join("a.gguf")));
        assert_eq!(by_start(&Flags::try_parse_from(["headroom"]).unwrap()), None);
    }
}
