//! What Windows must have. Nothing is installed behind the user's back there: it is named, with the command that brings it.

use crate::command::{has_program, step};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The workload brings compiler, linker and the system's headers; without `--override` only an empty shell would come.
const TOOLS: &str = "winget install Microsoft.VisualStudio.2022.BuildTools --override \"--wait --passive --add \
                     Microsoft.VisualStudio.Workload.VCTools --includeRecommended\"";
/// Where the runtime says its version, for all users and for this one:
/// <https://learn.microsoft.com/microsoft-edge/webview2/concepts/distribution>
const WEB_VIEW: [&str; 2] = [
    r"HKLM\SOFTWARE\WOW6432Node\Microsoft\EdgeUpdate\Clients\{F3017226-FE2A-4295-8BDF-00C3A9A7E4C5}",
    r"HKCU\Software\Microsoft\EdgeUpdate\Clients\{F3017226-FE2A-4295-8BDF-00C3A9A7E4C5}",
];

/// What a build needs.
pub fn for_build() -> Result<()> {
    if !has_compiler() {
        bail!(
            "there is no C compiler: {}, then open a new terminal and run this again",
            compiler(cfg!(target_env = "gnu"))
        );
    }
    Ok(())
}

/// What the window needs, which says so itself, too: no reason to stop.
pub fn for_window() {
    let found = WEB_VIEW.iter().any(|key| {
        let answer = step("reg", &["query", key, "/v", "pv"]).answer();
        answer.is_some_and(|answer| is_installed(&answer))
    });
    if !found {
        println!("The window needs the WebView2 runtime: winget install Microsoft.EdgeWebView2Runtime");
    }
}

/// `gnu`: for the toolchain that links with MinGW.
fn compiler(gnu: bool) -> &'static str {
    if gnu { "put the gcc of MinGW-w64 into PATH" } else { TOOLS }
}

fn has_compiler() -> bool {
    if cfg!(target_env = "gnu") {
        return has_program("gcc") || has_program("x86_64-w64-mingw32-gcc");
    }
    has_program("cl") || visual_studio().is_some()
}

/// The folder of a Visual Studio, or of its build tools, with the compiler of this processor; the installer alone has none.
fn visual_studio() -> Option<PathBuf> {
    let programs = std::env::var_os("ProgramFiles(x86)")?;
    let finder = Path::new(&programs).join(r"Microsoft Visual Studio\Installer\vswhere.exe");
    let part = match std::env::consts::ARCH {
        "aarch64" => "Microsoft.VisualStudio.Component.VC.Tools.ARM64",
        _ => "Microsoft.VisualStudio.Component.VC.Tools.x86.x64",
    };
    let asked = ["-latest", "-products", "*", "-requires", part, "-property", "installationPath"];
    let answer = step(&finder.display().to_string(), &asked).answer()?;
    answer.lines().map(str::trim).find(|line| !line.is_empty()).map(PathBuf::from)
}

/// Whether the registry's answer names a version. One that was removed may leave nothing behind, or zeros.
fn is_installed(answer: &str) -> bool {
    let words = answer.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let version = words.filter(|words| words.first() == Some(&"pv")).find_map(|words| words.get(2).copied());
    version.is_some_and(|version| version.chars().any(|c| c.is_ascii_digit() && c != '0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_says_whether_there_is_a_web_view() {
        let answer = |value: &str| format!("\r\n{}\r\n    pv    REG_SZ    {value}\r\n\r\n", WEB_VIEW[0]);
        assert!(is_installed(&answer("120.0.2210.144")));
        assert!(!is_installed(&answer("0.0.0.0")));
        assert!(!is_installed(&answer("")) && !is_installed(""));
    }

    #[test]
    fn the_compiler_comes_with_its_workload() {
        assert!(compiler(false).contains("--add Microsoft.VisualStudio.Workload.VCTools"));
        assert!(compiler(true).contains("gcc") && !compiler(true).contains("winget"));
    }
}
