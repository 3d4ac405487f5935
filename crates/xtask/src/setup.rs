//! Installs what a fresh machine lacks and says what it does.

use crate::command::{has_program, npm, step};
use crate::windows;
use anyhow::{Result, bail};
use std::path::Path;

/// Something the system must have, and the packages that bring it.
struct Need {
    what: &'static str,
    present: fn() -> bool,
    apt: &'static [&'static str],
    dnf: &'static [&'static str],
    pacman: &'static [&'static str],
}

/// To build and open the window.
const BUILD: &[Need] = &[
    Need {
        what: "WebKitGTK 4.1 for building",
        present: || pkg_config("webkit2gtk-4.1"),
        apt: &["pkg-config", "libwebkit2gtk-4.1-dev", "build-essential"],
        dnf: &["pkgconf", "webkit2gtk4.1-devel", "gcc", "gcc-c++"],
        pacman: &["pkgconf", "webkit2gtk-4.1", "base-devel"],
    },
    Need {
        what: "fonts with Japanese characters",
        present: japanese_fonts,
        apt: &["fonts-noto-cjk", "fontconfig"],
        dnf: &["google-noto-sans-cjk-fonts", "fontconfig"],
        pacman: &["noto-fonts-cjk", "fontconfig"],
    },
];

/// To show the window where there is no display.
const DISPLAY: &[Need] = &[Need {
    what: "a virtual display (Xvfb)",
    present: || has_program("Xvfb") && has_program("xauth"),
    apt: &["xvfb", "xauth"],
    dnf: &["xorg-x11-server-Xvfb", "xorg-x11-xauth"],
    pacman: &["xorg-server-xvfb", "xorg-xauth"],
}];

/// To drive the window in tests.
const DRIVER: &[Need] = &[Need {
    what: "WebKitWebDriver",
    present: || has_program("WebKitWebDriver"),
    apt: &["webkit2gtk-driver"],
    dnf: &["webkit2gtk4.1"],
    pacman: &["webkit2gtk-4.1"],
}];

/// To build llama.cpp and its bindings.
const PEER: &[Need] = &[
    Need {
        what: "CMake and a C++ compiler",
        present: || has_program("cmake") && has_program("c++"),
        apt: &["cmake", "build-essential"],
        dnf: &["cmake", "gcc-c++", "make"],
        pacman: &["cmake", "base-devel"],
    },
    Need { what: "libclang", present: libclang, apt: &["libclang-dev"], dnf: &["clang-devel"], pacman: &["clang"] },
];

/// To build for AArch64 and to run that here.
const NEON: &[Need] = &[Need {
    what: "a linker and an emulator for AArch64",
    present: || {
        ["aarch64-linux-gnu-gcc", "qemu-aarch64"].into_iter().all(has_program) && Path::new(AARCH64_ROOT).exists()
    },
    apt: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"],
    dnf: &["gcc-aarch64-linux-gnu", "qemu-user"],
    pacman: &["aarch64-linux-gnu-gcc", "aarch64-linux-gnu-glibc", "qemu-user"],
}];

/// To build for Windows and to make an installer for it on Linux. Tauri's script for the installer needs parts of NSIS that
/// older versions (3.08) lack.
const WINDOWS: &[Need] = &[Need {
    what: "MinGW-w64 and NSIS 3.11",
    present: || {
        ["x86_64-w64-mingw32-gcc", "makensis"].into_iter().all(has_program)
            && Path::new("/usr/share/nsis/Include/Win/RestartManager.nsh").exists()
    },
    apt: &["gcc-mingw-w64-x86-64", "nsis"],
    dnf: &["mingw64-gcc", "mingw64-nsis"],
    pacman: &["mingw-w64-gcc", "nsis"],
}];

/// Where the emulator finds libraries.
pub const AARCH64_ROOT: &str = "/usr/aarch64-linux-gnu";

/// What `cargo xtask run` needs.
pub fn for_run(virtual_display: bool) -> Result<()> {
    system(BUILD)?;
    if virtual_display {
        system(DISPLAY)?;
    }
    if cfg!(windows) {
        windows::for_window();
    }
    node()
}

/// What `cargo xtask test` needs.
pub fn for_test(window: bool) -> Result<()> {
    system(BUILD)?;
    if window {
        system(DISPLAY)?;
        system(DRIVER)?;
    }
    node()
}

/// What `cargo xtask bench --peer` needs.
pub fn for_peer() -> Result<()> {
    if cfg!(windows) {
        let missing = ["cmake", "clang"].into_iter().filter(|program| !has_program(program)).collect::<Vec<_>>();
        if !missing.is_empty() {
            bail!("{} is not in PATH: winget install Kitware.CMake LLVM.LLVM", missing.join(" and "));
        }
    }
    system(PEER)
}

/// What `cargo xtask neon` needs.
pub fn for_neon(target: &str) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the emulator for AArch64 runs on Linux");
    }
    system(NEON)?;
    rust_target(target)
}

/// What `cargo xtask bundle` needs.
pub fn for_bundle(target: &str) -> Result<()> {
    system(BUILD)?;
    if target.contains("windows") && !cfg!(windows) {
        system(WINDOWS)?;
        rust_target(target)?;
    }
    node()
}

/// The standard library for another system.
fn rust_target(target: &str) -> Result<()> {
    let installed = step("rustup", &["target", "list", "--installed"]).output()?;
    if installed.lines().all(|line| line != target) {
        step("rustup", &["target", "add", target]).run()?;
    }
    Ok(())
}

pub fn everything() -> Result<()> {
    for_test(true)
}

fn pkg_config(library: &str) -> bool {
    step("pkg-config", &["--exists", library]).succeeds()
}

/// Whether the library is where the generator of bindings looks for it.
fn libclang() -> bool {
    let library = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libclang"));
    let holds =
        |folder: &Path| std::fs::read_dir(folder).is_ok_and(|files| files.flatten().any(|file| library(&file.path())));
    let versions = ["/usr/lib", "/usr/lib64"].into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let llvm = versions.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    std::env::var_os("LIBCLANG_PATH").is_some()
        || holds(Path::new("/usr/lib"))
        || holds(Path::new("/usr/lib64"))
        || llvm.flat_map(|path| [path.join("lib"), path]).any(|folder| holds(&folder))
}

fn japanese_fonts() -> bool {
    step("fc-list", &[":lang=ja", "family"]).output().is_ok_and(|fonts| !fonts.trim().is_empty())
}

fn system(needs: &[Need]) -> Result<()> {
    if cfg!(windows) {
        return windows::for_build();
    }
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.what).collect();
    println!("Missing: {}.", names.join(", "));
    let packages = |of: fn(&Need) -> &'static [&'static str]| missing.iter().flat_map(move |need| of(need).to_vec());
    if has_program("apt-get") {
        let options = ["-o", "DPkg::Lock::Timeout=400"];
        as_root("apt-get", options.into_iter().chain(["update"]))?;
        as_root(
            "apt-get",
            options.into_iter().chain(["install", "-y", "--no-install-recommends"]).chain(packages(|n| n.apt)),
        )?;
    } else if has_program("dnf") {
        as_root("dnf", ["install", "-y"].into_iter().chain(packages(|n| n.dnf)))?;
    } else if has_program("pacman") {
        as_root("pacman", ["-S", "--needed", "--noconfirm"].into_iter().chain(packages(|n| n.pacman)))?;
    } else {
        bail!("install these with your package manager, then run this again: {}", names.join(", "));
    }
    match missing.iter().find(|need| !(need.present)()) {
        Some(need) => bail!("{} is still missing after the installation", need.what),
        None => Ok(()),
    }
}

/// Runs a package manager, with sudo unless we are root already.
fn as_root<'a>(program: &'a str, arguments: impl Iterator<Item = &'a str>) -> Result<()> {
    let arguments: Vec<&str> = arguments.collect();
    let root = step("id", &["-u"]).output().is_ok_and(|id| id.trim() == "0");
    if root {
        return step(program, &arguments).env("DEBIAN_FRONTEND", "noninteractive").run();
    }
    if !has_program("sudo") {
        bail!("run this as root, then again: {program} {}", arguments.join(" "));
    }
    let words: Vec<&str> = std::iter::once(program).chain(arguments).collect();
    step("sudo", &words).run()
}

fn node() -> Result<()> {
    let version = step("node", &["--version"]).answer().unwrap_or_default();
    let install = match cfg!(windows) {
        true => "winget install OpenJS.NodeJS.LTS, then open a new terminal and run this again",
        false => "install Node.js (https://nodejs.org), then run this again",
    };
    match node_fits(&version) {
        Some(true) => {}
        Some(false) => bail!("Node.js {} does not fit, {NODE} is needed: {install}", version.trim()),
        None => bail!("{NODE} is missing: {install}"),
    }
    // npm leaves this file behind when it has installed exactly the lock file's packages.
    let (lock, installed) = (Path::new("ui/package-lock.json"), Path::new("ui/node_modules/.package-lock.json"));
    let time = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    if time(installed).is_none_or(|installed| time(lock).is_some_and(|lock| lock > installed)) {
        npm(&["ci", "--no-audit", "--no-fund"]).run()?;
    }
    Ok(())
}

/// What the packages of `ui/package-lock.json` run with.
const NODE: &str = "Node.js 20.19, 22.13, or 24 and newer";

/// Whether that is what `node --version` says; `None` if it says no version.
fn node_fits(version: &str) -> Option<bool> {
    let mut numbers = version.trim().strip_prefix('v')?.split('.').map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some(match major {
        20 => minor >= 19,
        22 => minor >= 13,
        _ => major >= 24,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node_fit_or_do_not() {
        for fits in ["v20.19.0\n", "v22.13.1\r\n", "v24.0.0", "v26.1.0"] {
            assert_eq!(node_fits(fits), Some(true), "{fits}");
        }
        for old in ["v18.20.4", "v20.18.3", "v21.7.0", "v22.12.0", "v23.11.0"] {
            assert_eq!(node_fits(old), Some(false), "{old}");
        }
        for none in ["", "node", "v", "v20"] {
            assert_eq!(node_fits(none), None, "{none}");
        }
    }
}
