//! Names that come from servers and windows: repositories, revisions and the paths of files.

use std::path::PathBuf;

use crate::HubError;

fn bad(name: &str, why: &'static str) -> HubError {
    // A hostile name must not flood a message.
    HubError::BadName { name: name.chars().take(100).collect(), why }
}

/// Checks `owner/name` (or the older `name`): letters, digits, `-`, `_`, `.`, each part at most 96 characters.
pub fn check_repo(repo: &str) -> Result<(), HubError> {
    let parts: Vec<&str> = repo.split('/').collect();
    if parts.len() > 2 {
        return Err(bad(repo, "a repository is written owner/name"));
    }
    for part in parts {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if part.is_empty() || part.len() > 96 || !plain || part.contains("..") || part.contains("--") {
            return Err(bad(repo, "a repository is written owner/name, in letters, digits, '-', '_' and '.'"));
        }
        if part.starts_with(['.', '-']) || part.ends_with(['.', '-']) {
            return Err(bad(repo, "'.' and '-' cannot stand at the ends"));
        }
        if is_reserved_on_windows(part) {
            return Err(bad(repo, "Windows keeps this name for a device"));
        }
    }
    Ok(())
}

/// Checks a branch, tag or commit.
pub fn check_revision(revision: &str) -> Result<(), HubError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    if revision.is_empty() || revision.len() > 200 || !revision.chars().all(plain) || revision.contains("..") {
        return Err(bad(revision, "a revision is a branch, a tag or a commit"));
    }
    Ok(())
}

/// The path of a file in a repository as a relative path that is safe to create on Linux and Windows.
///
/// # Errors
/// [`HubError::BadName`] for absolute paths, `..`, control characters, characters and names that Windows reserves,
/// parts above 200 bytes, more than 8 parts.
pub fn safe_path(path: &str) -> Result<PathBuf, HubError> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 8 {
        return Err(bad(path, "too many folders"));
    }
    for part in &parts {
        if part.is_empty() || *part == "." || *part == ".." {
            return Err(bad(path, "it must be a plain relative path"));
        }
        if part.len() > 200 {
            return Err(bad(path, "longer than 200 bytes"));
        }
        if part.chars().any(|c| c.is_control() || is_direction_mark(c)) {
            return Err(bad(path, "it contains invisible characters"));
        }
        if part.contains(['\\', ':', '*', '?', '"', '<', '>', '|']) {
            return Err(bad(path, "it contains a character that Windows does not allow"));
        }
        if part.ends_with(['.', ' ']) || part.starts_with(' ') {
            return Err(bad(path, "it begins or ends with a space or ends with a dot"));
        }
        if is_reserved_on_windows(part) {
            return Err(bad(path, "Windows keeps this name for a device"));
        }
    }
    if parts[0].eq_ignore_ascii_case(crate::download::STAGING) {
        return Err(bad(path, "this folder is used for unfinished downloads"));
    }
    Ok(parts.iter().collect())
}

/// Marks that reorder text, so that a name reads other than it is.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Device names, with any extension: <https://learn.microsoft.com/windows/win32/fileio/naming-a-file>.
fn is_reserved_on_windows(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let number = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    number.is_some_and(|n| {
        let mut chars = n.chars();
        matches!((chars.next(), chars.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repositories() {
        for good in ["unsloth/Qwen3-8B-GGUF", "a/b", "gpt2", "bartowski/Llama_3.1.x"] {
            check_repo(good).unwrap();
        }
        for evil in
            ["", "/", "a/", "/a", "a/b/c", "../b", "a/..", "a b/c", "a/b?x", "a/b#", "a\\b/c", "a/con", "ä/b", "a/.b"]
        {
            assert_eq!(check_repo(evil).unwrap_err().code(), "bad_name", "{evil}");
        }
    }

    #[test]
    fn revisions() {
        for good in ["main", "refs/pr/12", "0123456789abcdef0123456789abcdef01234567", "v1.0+x"] {
            check_revision(good).unwrap();
        }
        for evil in ["", "..", "a/../b", "a b", "a?b", "a%2e"] {
            assert!(check_revision(evil).is_err(), "{evil}");
        }
    }

    #[test]
    fn hostile_paths() {
        let long = "x".repeat(201);
        for evil in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "./a",
            "C:/x",
            "a\\b",
            "a\0b",
            "a\nb",
            "NUL",
            "nul.gguf",
            "com1.gguf",
            "LPT9",
            "COM¹.x",
            "a/CONOUT$",
            "a.",
            "a ",
            " a",
            "a/b:stream",
            "a\u{202e}fugg.exe",
            "1/2/3/4/5/6/7/8/9",
            ".headroom-part/x",
            ".Headroom-Part/x",
            long.as_str(),
        ] {
            assert_eq!(safe_path(evil).unwrap_err().code(), "bad_name", "{evil:?}");
        }
    }

    #[test]
    fn usual_paths() {
        for good in [
            "model-Q4_K_M.gguf",
            "Q4_K_M/m-00001-of-00002.gguf",
            "日本語.gguf",
            ".gitattributes",
            "COM10.gguf",
            "console",
        ] {
            assert_eq!(safe_path(good).unwrap().iter().count(), good.split('/').count());
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_stays_inside(path in "[ -~/\\\\.a-c:\u{0}\u{202e}]{0,40}") {
            if let Ok(safe) = safe_path(&path) {
                prop_assert!(safe.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}
