//! Checks of the house that no compiler makes.

use crate::command::{cargo, step};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Crates that may contain `unsafe`.
const MAY_BE_UNSAFE: &[&str] = &["crates/weights/", "crates/backend-cpu/", "crates/backend-cuda/"];
/// Lines that a source file may have; tables and generated files are named one by one.
const MAX_LINES: usize = 600;
const LONG_FILES: &[&str] = &["ui/src/ipc/bindings.ts", "ui/package-lock.json", "Cargo.lock"];

pub fn tidy() -> Result<()> {
    let mut problems = Vec::new();
    structure(&mut problems)?;
    for path in step("git", &["ls-files", "--cached", "--others", "--exclude-standard"]).output()?.lines() {
        if Path::new(path).is_file() {
            file(path, &mut problems)?;
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} problems:\n  {}", problems.len(), problems.join("\n  "))
}

fn file(path: &str, problems: &mut Vec<String>) -> Result<()> {
    let source = [".rs", ".ts", ".svelte", ".css", ".mjs"].iter().any(|end| path.ends_with(end));
    let text = [".md", ".toml", ".json", ".html", ".yml", ".sh"].iter().any(|end| path.ends_with(end));
    if !(source || text) {
        return Ok(());
    }
    let content = std::fs::read_to_string(path).with_context(|| format!("{path} is not UTF-8"))?;
    let lines = content.lines().count();
    if source && lines > MAX_LINES && !LONG_FILES.contains(&path) && !content.contains("tidy: a table") {
        problems.push(format!("{path} has {lines} lines; split it (at most {MAX_LINES})"));
    }
    if content.contains("\r\n") {
        // Formatters would find something on every line, and fixtures would differ.
        problems.push(format!("{path} has the line ends of Windows (\\r\\n)"));
    }
    let this_file = path == "crates/xtask/src/tidy.rs";
    let unsafe_word = concat!("un", "safe");
    let opens = [format!("{unsafe_word} {{"), format!("{unsafe_word} fn"), format!("{unsafe_word} impl")];
    if path.ends_with(".rs")
        && !this_file
        && !MAY_BE_UNSAFE.iter().any(|folder| path.starts_with(folder))
        && opens.iter().any(|open| content.contains(open))
    {
        problems.push(format!("{path} uses {unsafe_word}, which is allowed in weights and the backends only"));
    }
    for (number, line) in content.lines().enumerate() {
        for word in ["/root/", "/work/main", "/work/shared", "C:\\Users\\"] {
            if !this_file && line.contains(word) {
                problems.push(format!("{path}:{}: names a place on one machine: {word}", number + 1));
            }
        }
    }
    Ok(())
}

/// The map in ARCHITECTURE.md is what cargo says.
fn structure(problems: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string("ARCHITECTURE.md").context("ARCHITECTURE.md")?;
    let map = map(&text)?;
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"]).output()?)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for name in ours.iter().filter(|name| !map.contains_key(**name)) {
        problems.push(format!("ARCHITECTURE.md: the map lacks the crate {name}"));
    }
    for name in map.keys().filter(|name| !ours.contains(name.as_str())) {
        problems.push(format!("ARCHITECTURE.md: the map names {name}, which does not exist"));
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = map.get(name) else { continue };
        let dependencies = package["dependencies"].as_array().context("no dependencies")?;
        let used: BTreeSet<&str> = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|dependency| ours.contains(dependency))
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().map(String::as_str).collect();
        if used != allowed {
            problems.push(format!("ARCHITECTURE.md: {name} depends on {used:?}, the map says {allowed:?}"));
        }
    }
    Ok(())
}

/// Rows `| crate | purpose | depends on |` of the table under "## The map".
fn map(text: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let section = text.split("## The map").nth(1).context("ARCHITECTURE.md has no section '## The map'")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut map = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, dependencies] = cells.as_slice() else { bail!("a row of the map has not three cells: {line}") };
        let names = dependencies.split(',').map(|name| name.trim().trim_matches('`').to_string());
        map.insert(name.trim_matches('`').to_string(), names.filter(|name| !name.is_empty() && name != "-").collect());
    }
    if map.is_empty() {
        bail!("the map in ARCHITECTURE.md is empty");
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_read() {
        let text = "# A\n## The map\n| crate | for | depends on |\n|---|---|---|\n| `a` | x | - |\n| `b` | y | `a`, `c` |\n## Z\n| `q` | | |";
        let map = map(text).unwrap();
        assert_eq!(map.len(), 2);
        assert_eq!(map["b"], ["a", "c"]);
        assert!(map["a"].is_empty());
    }

    #[test]
    fn long_files_and_other_line_ends_are_problems() {
        let folder = std::env::temp_dir().join("headroom-tidy-test");
        std::fs::create_dir_all(&folder).unwrap();
        for (content, count) in [("//\n".repeat(MAX_LINES + 1), 1), ("//\r\n".into(), 1), ("// \\r\\n\n".into(), 0)] {
            let path = folder.join("file.rs");
            std::fs::write(&path, content).unwrap();
            let mut problems = Vec::new();
            file(path.to_str().unwrap(), &mut problems).unwrap();
            assert_eq!(problems.len(), count, "{problems:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
