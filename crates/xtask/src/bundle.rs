//! `cargo xtask bundle`: what people install, with the window, the command line and what their desktop wants to know of both.

use crate::command::{cargo, npm, step};
use crate::notices::notices;
use crate::run::{build_ui, target_dir};
use crate::setup;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Tauri's own program makes the packages and installers, from `src-tauri/tauri.conf.json`.
const TOOL: &str = "@tauri-apps/cli@2.12.5";
const TOOL_FOLDER: &str = "target/tauri";
/// What it takes besides, which is not there before a build.
const STAGE: &str = "target/bundle";
/// Where packages have what is no page of the manual.
const DOCUMENTS: &str = "/usr/share/doc/headroom";
/// The terms of other authors' libraries.
const TERMS: &str = "third-party.txt";

pub fn bundle(arguments: &[String]) -> Result<ExitCode> {
    let host = host()?;
    let target = match arguments {
        [] => host.as_str(),
        [flag, target] if flag == "--target" => target.as_str(),
        _ => bail!("cargo xtask bundle [--target TRIPLE]"),
    };
    setup::for_bundle(target)?;
    build_ui()?;
    let other: &[&str] = if target == host { &[] } else { &["--target", target] };
    cargo(&[&["build", "--release", "-p", "headroom-desktop", "-p", "cli"], other].concat()).run()?;

    let target_dir = target_dir()?;
    let programs = if target == host { target_dir } else { target_dir.join(target) }.join("release");
    let ending = if target.contains("windows") { ".exe" } else { "" };
    let program = |name: &str| {
        let path = programs.join(format!("{name}{ending}"));
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    let (window, command_line) = (program("headroom-desktop")?, program("headroom")?);
    let glibc = glibc(&window).max(glibc(&command_line)).filter(|_| target.contains("linux"));
    std::fs::create_dir_all(STAGE)?;
    let staged = Path::new(STAGE).join(format!("headroom-{target}{ending}"));
    // A copy keeps the permission to run.
    std::fs::copy(programs.join(format!("headroom{ending}")), &staged).with_context(|| staged.display().to_string())?;
    let terms = Path::new(STAGE).join(TERMS);
    std::fs::write(&terms, notices(target)?).with_context(|| terms.display().to_string())?;
    let config = Path::new(STAGE).join("tauri.conf.json");
    let documents =
        if target.contains("linux") { documents((target == host).then_some(programs.as_path()))? } else { Vec::new() };
    std::fs::write(&config, additions(glibc, &documents).to_string()).with_context(|| config.display().to_string())?;

    let tool = tool()?;
    let config = std::path::absolute(config)?.display().to_string();
    step("node", &[&[tool.as_str(), "bundle", "--ci", "--config", &config], other].concat()).run()?;
    Ok(ExitCode::SUCCESS)
}

/// What cargo builds for when nobody says.
fn host() -> Result<String> {
    let about = step("rustc", &["-vV"]).output()?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Tauri's program, a script for Node.js, in a folder of ours.
fn tool() -> Result<String> {
    let folder = std::path::absolute(TOOL_FOLDER)?;
    let package = folder.join("node_modules/@tauri-apps/cli");
    let text = std::fs::read_to_string(package.join("package.json")).unwrap_or_default();
    let installed = serde_json::from_str::<Value>(&text).unwrap_or_default();
    if TOOL.rsplit('@').next() != installed["version"].as_str() {
        std::fs::create_dir_all(&folder)?;
        let folder = folder.display().to_string();
        let quietly = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"];
        npm(&[&["install", "--prefix", folder.as_str()], &quietly[..], &[TOOL]].concat()).run()?;
    }
    Ok(package.join("tauri.js").display().to_string())
}

/// What packages of Linux have to read: where it goes, and where it is, seen from `src-tauri`. `programs`: where
/// those are that run here.
fn documents(programs: Option<&Path>) -> Result<Vec<(String, String)>> {
    let stage = Path::new(STAGE).join("doc");
    // What an earlier version had is not in this one.
    let _ = std::fs::remove_dir_all(&stage);
    std::fs::create_dir_all(&stage).with_context(|| stage.display().to_string())?;
    let folder = std::path::absolute(&stage)?.display().to_string();
    // Of another system's programs, those of this one say the same.
    let run = |package: &str, program: &str, arguments: &[&str]| match programs {
        Some(programs) => step(&programs.join(program).display().to_string(), arguments).run(),
        None => cargo(&[&["run", "--quiet", "-p", package, "--"], arguments].concat()).run(),
    };
    run("cli", "headroom", &["dev", "man", &folder])?;
    run("headroom-desktop", "headroom-desktop", &["--man", &folder])?;
    std::fs::copy("CHANGELOG.md", stage.join("changelog")).context("CHANGELOG.md")?;
    std::fs::copy(Path::new(STAGE).join(TERMS), stage.join(TERMS)).context(TERMS)?;
    let mut found = Vec::new();
    let written: Vec<_> = std::fs::read_dir(&stage)?.collect::<Result<_, _>>()?;
    for path in written.into_iter().map(|entry| entry.path()) {
        // Without its name and the time: the same build makes the same package.
        step("gzip", &["-9n", &path.display().to_string()]).run()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = if ["changelog", TERMS].contains(&name.as_str()) { DOCUMENTS } else { "/usr/share/man/man1" };
        found.push((format!("{place}/{name}.gz"), format!("../{STAGE}/doc/{name}.gz")));
    }
    found.sort();
    Ok(found)
}

/// Joins the configuration: the command line beside the window, the C library that both were linked with or a newer one, and
/// documents.
fn additions(glibc: Option<(u32, u32)>, documents: &[(String, String)]) -> Value {
    let mut bundle = json!({ "externalBin": [format!("../{STAGE}/headroom")] });
    if let Some((major, minor)) = glibc {
        bundle["linux"] = json!({
            "deb": { "depends": [format!("libc6 (>= {major}.{minor})")] },
            "rpm": { "depends": [format!("libc.so.6(GLIBC_{major}.{minor})(64bit)")] },
        });
    }
    if documents.is_empty() {
        // Beside the programs.
        bundle["resources"][format!("../{STAGE}/{TERMS}")] = json!(TERMS);
    }
    for (place, source) in documents {
        for package in ["deb", "rpm"] {
            bundle["linux"][package]["files"][place] = json!(source);
        }
    }
    json!({ "bundle": bundle })
}

/// The newest version of the C library that a program asks for: names such as `GLIBC_2.34` lie in it as text.
fn glibc(program: &[u8]) -> Option<(u32, u32)> {
    const NAME: &[u8] = b"GLIBC_";
    let versions = program.windows(NAME.len()).enumerate().filter(|(_, bytes)| *bytes == NAME).filter_map(|(at, _)| {
        let rest = &program[at + NAME.len()..];
        let end = rest.iter().position(|byte| !(byte.is_ascii_digit() || *byte == b'.'))?;
        let mut numbers = std::str::from_utf8(&rest[..end]).ok()?.split('.').map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_c_library_is_asked_for() {
        let program = b"\x7fELF\0GLIBC_2.2.5\0libc.so.6\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_\0GLIBC_2.99";
        assert_eq!(glibc(program), Some((2, 34)), "the last one is not a whole name");
        assert_eq!(glibc(b"MZ"), None);
        let page = ("/usr/share/man/man1/headroom.1.gz".to_owned(), "../target/bundle/doc/headroom.1.gz".to_owned());
        let bundle = &additions(Some((2, 34)), std::slice::from_ref(&page))["bundle"];
        assert_eq!(bundle["linux"]["deb"]["files"], json!({ page.0.clone(): page.1 }));
        assert_eq!(bundle["linux"]["deb"]["files"], bundle["linux"]["rpm"]["files"]);
        assert_eq!(bundle["linux"]["deb"]["depends"], json!(["libc6 (>= 2.34)"]));
        assert_eq!(bundle["linux"]["rpm"]["depends"], json!(["libc.so.6(GLIBC_2.34)(64bit)"]));
        assert!(bundle["resources"].is_null());
        let elsewhere = &additions(None, &[])["bundle"];
        assert_eq!(elsewhere["externalBin"], json!(["../target/bundle/headroom"]));
        assert_eq!(elsewhere["resources"], json!({ "../target/bundle/third-party.txt": "third-party.txt" }));
        assert!(elsewhere["linux"].is_null());
    }

    #[test]
    fn what_the_configuration_names_is_there() {
        let folder = crate::root().join("src-tauri");
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("tauri.conf.json")).unwrap()).unwrap();
        let bundle = &config["bundle"];
        let mut named: Vec<&Value> = bundle["icon"].as_array().unwrap().iter().collect();
        for package in ["deb", "rpm"] {
            let package = &bundle["linux"][package];
            named.push(&package["desktopTemplate"]);
            named.extend(package["files"].as_object().unwrap().values());
        }
        for path in named {
            let path = folder.join(path.as_str().unwrap());
            assert!(path.is_file(), "{}", path.display());
        }
        // The type that is described is the type that is opened.
        let ty = bundle["fileAssociations"][0]["mimeType"].as_str().unwrap();
        let described = std::fs::read_to_string(folder.join("linux/gguf.xml")).unwrap();
        assert!(described.contains(&format!("<mime-type type=\"{ty}\">")));
    }
}
