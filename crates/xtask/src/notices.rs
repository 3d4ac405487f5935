//! The terms of other authors' libraries in the programs, which everybody who gets these must get, too: of crates as cargo
//! resolves them, of the window's packages as npm locked them.

use crate::command::cargo;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The packages that become the programs.
const PROGRAMS: [&str; 2] = ["headroom-desktop", "cli"];
/// What begins the names of files with terms.
const TERMS: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];
/// Longer files are no terms.
const LONGEST: u64 = 256 << 10;

/// A library: its terms by name, and the files that say them.
struct Library {
    name: String,
    license: String,
    texts: BTreeSet<String>,
}

/// All of them for `target`, in one text: each set of terms once, below the libraries that have it.
pub fn notices(target: &str) -> Result<String> {
    let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
    let metadata: Value = serde_json::from_str(&cargo(&arguments).output()?).context("cargo metadata")?;
    let lock = std::fs::read_to_string("ui/package-lock.json").context("ui/package-lock.json")?;
    let mut libraries = crates(&metadata)?;
    libraries.extend(packages(&serde_json::from_str(&lock).context("ui/package-lock.json")?)?);
    Ok(text(&libraries))
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The crates that are linked: not what only builds or tests them.
fn crates(metadata: &Value) -> Result<Vec<Library>> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"]).iter().map(|it| (field(it, "id"), it)).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().map(|it| (field(it, "id"), it)).collect();
    let mut waiting: Vec<&str> =
        packages.iter().filter(|(_, it)| PROGRAMS.contains(&field(it, "name"))).map(|(id, _)| *id).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !found.insert(id) {
            continue;
        }
        let linked = |it: &&Value| list(&it["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        waiting.extend(
            nodes.get(id).into_iter().flat_map(|node| list(&node["deps"])).filter(linked).map(|it| field(it, "pkg")),
        );
    }
    // What has no source is ours.
    let others = found.iter().filter_map(|id| packages.get(id)).filter(|it| it["source"].is_string());
    others
        .map(|it| {
            let folder = Path::new(field(it, "manifest_path")).parent().context("a crate has no folder")?;
            library(format!("{} {}", field(it, "name"), field(it, "version")), field(it, "license"), folder)
        })
        .collect()
}

/// The window's packages: those that are there for more than to build and test it.
fn packages(lock: &Value) -> Result<Vec<Library>> {
    let all = lock["packages"].as_object().context("ui/package-lock.json has no packages")?;
    let shipped = all.iter().filter(|(path, it)| !path.is_empty() && it["dev"] != true && it["optional"] != true);
    shipped
        .map(|(path, it)| {
            let name = path.rsplit("node_modules/").next().unwrap_or(path);
            library(format!("{name} {}", field(it, "version")), field(it, "license"), &Path::new("ui").join(path))
        })
        .collect()
}

fn library(name: String, license: &str, folder: &Path) -> Result<Library> {
    let mut texts = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{name} is not at {}", folder.display()))? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().to_lowercase();
        let about = entry.metadata()?;
        if about.is_file() && about.len() <= LONGEST && TERMS.iter().any(|start| file.starts_with(start)) {
            let text = std::fs::read(entry.path()).with_context(|| entry.path().display().to_string())?;
            texts.insert(String::from_utf8_lossy(&text).replace("\r\n", "\n").trim().to_owned());
        }
    }
    Ok(Library { name, license: license.to_owned(), texts })
}

/// Every text once, below the libraries that have it; at last those that bring none.
fn text(libraries: &[Library]) -> String {
    let mut names: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for library in libraries {
        let name = format!("{} ({})", library.name, library.license);
        let none = library.texts.is_empty().then_some("(no text comes with these)");
        for text in library.texts.iter().map(String::as_str).chain(none) {
            names.entry(text).or_default().insert(name.clone());
        }
    }
    let mut entries: Vec<_> = names.into_iter().map(|(text, names)| (names, text)).collect();
    entries.sort();
    let mut all = "Headroom contains libraries of other authors, under these terms.\n".to_owned();
    for (names, text) in entries {
        let names = names.into_iter().collect::<Vec<_>>().join("\n");
        all.push_str(&format!("\n{}\n{names}\n\n{text}\n", "=".repeat(80)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn library(name: &str, texts: &[&str]) -> Library {
        Library { name: name.into(), license: "MIT".into(), texts: texts.iter().map(|it| (*it).to_owned()).collect() }
    }

    #[test]
    fn terms_that_are_alike_come_once() {
        let said = text(&[library("b 1", &["Terms"]), library("a 2", &["Terms"]), library("c 3", &[])]);
        assert_eq!(said.matches("Terms").count(), 1);
        assert!(said.contains("\na 2 (MIT)\nb 1 (MIT)\n\nTerms\n"), "{said}");
        assert!(said.contains("\nc 3 (MIT)\n\n(no text"), "{said}");
    }

    #[test]
    fn only_what_is_linked_has_its_terms_told() {
        let here = std::env::temp_dir().join(format!("headroom-notices-{}", std::process::id()));
        std::fs::create_dir_all(&here).unwrap();
        std::fs::write(here.join("LICENSE-MIT"), "Terms of it\r\nall\n").unwrap();
        std::fs::write(here.join("lib.rs"), "no terms").unwrap();
        let manifest = here.join("Cargo.toml").display().to_string();
        let package = |name: &str, source: Value| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source, "manifest_path": manifest });
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("cli", Value::Null), package("ours", Value::Null), package("far", "registry".into()),
                package("test", "registry".into()), package("other", "registry".into())],
            "resolve": { "nodes": [
                { "id": "cli", "deps": [dep("ours", Value::Null), dep("test", "dev".into())] },
                { "id": "ours", "deps": [dep("far", Value::Null)] },
                { "id": "other", "deps": [] },
            ] },
        });
        let found = crates(&metadata).unwrap();
        std::fs::remove_dir_all(&here).unwrap();
        let [far] = &found[..] else { panic!("{} crates", found.len()) };
        assert_eq!((far.name.as_str(), far.license.as_str()), ("far 1.0.0", "MIT"));
        assert_eq!(far.texts, BTreeSet::from(["Terms of it\nall".to_owned()]));
    }
}
