//! Wrong and hostile arguments: status 1 or 2, a code on standard error, nothing on standard output, no panic.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Home, ended, fixture};
use std::io::Read;
use test_models::ModelSpec;

const TINY: &str = "rustdoc-tiny-Q4_K_M.gguf";

#[test]
fn a_data_folder_that_is_a_file_is_told_as_that() {
    let home = Home::new();
    std::fs::write(home.data(), "").unwrap();
    assert!(home.fails(&["list"], 2, "usage").contains("is not a folder"));
}

#[test]
fn wrong_flags_are_usage() {
    let home = Home::new();
    let model = fixture(TINY);
    let wrong: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["inspect"],
        &["run", &model, "-p", "x", "-c", "0"],
        &["run", &model, "-p", "x", "-c", "-5"],
        &["run", &model, "-p", "x", "-ngl", "many"],
        &["run", &model, "-p", "x", "-t", "0"],
        &["run", &model, "-p", "x", "-ctk", "q4_k"],
        &["run", &model, "-p", "x", "--temp", "nan"],
        &["run", &model, "-p", "x", "--temp", "-1"],
        &["run", &model, "-p", "x", "--top-p", "inf"],
        &["run", &model, "-p", " "],
        &["run", &model],
        &["chat", &model, "--min-p", "2"],
        &["generate", &model, "--ids", "1,x", "-n", "1"],
        &["generate", &model, "--ids", "4294967295", "-n", "1"],
        &["generate", &model, "--ids", "1,4096", "-n", "1"],
        &["generate", &model, "--ids", "1", "-n", "1", "--repeat-penalty", "NaN"],
        &["logits", &model, "--ids", "999999", "-o", "unused"],
        &["detokenize", &model, "--ids", "999999"],
        &["tokenize", &model, "--hex", "0g"],
        &["tokenize", &model, "--hex", "+f"],
        &["tokenize", &model, "--hex", "é0"],
        &["tokenize", &model],
        &["plan", &model, "--ram", "lots"],
        &["bench", &model, "-r", "0"],
        &["bench", &model, "-d", "4294967295"],
        &["search", "x", "--sort", "beauty"],
        &["pull", "../../etc:Q4_0"],
        &["files", "a b/c"],
        &["remove", "x", "--force"],
        &["dev", "quantize", "--type", "q8_0", "--cols", "7", &model, "unused"],
    ];
    for arguments in wrong {
        home.fails(arguments, 2, "usage");
    }
    assert!(!std::path::Path::new("unused").exists());
}

#[test]
fn help_is_no_failure() {
    let home = Home::new();
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let ended = home.run(arguments);
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
        assert!(!ended.stdout.is_empty());
    }
}

#[test]
fn files_that_are_no_models() {
    let home = Home::new();
    let folder = home.folder.path().to_str().unwrap().to_owned();
    let text = home.file("text.gguf", b"not a model at all, but long enough for a header");
    let empty = home.file("empty.gguf", b"");
    let whole = ModelSpec::llama().build();
    let cut = home.file("cut.gguf", &whole[..whole.len() - 100]);
    let header = home.file("header.gguf", &whole[..64]);
    let commands: &[fn(&str) -> Vec<&str>] = &[
        |model| vec!["run", model, "-p", "x"],
        |model| vec!["chat", model],
        |model| vec!["generate", model, "--ids", "1", "-n", "1"],
        |model| vec!["bench", model],
    ];
    for command in commands {
        home.fails(&command(&folder), 1, "file-invalid");
        home.fails(&command(&text), 1, "file-invalid");
        home.fails(&command(&empty), 1, "file-truncated");
        home.fails(&command(&cut), 1, "file-truncated");
        home.fails(&command(&header), 1, "file-truncated");
        home.fails(&command("no-such-model"), 1, "not-found");
    }
    home.fails(&["inspect", &folder], 1, "file-invalid");
    home.fails(&["inspect", &text], 1, "file-invalid");
    home.fails(&["plan", "no-such-model"], 1, "not-found");
    let unknown = home.model("unknown.gguf", &ModelSpec { arch: "perceptron".into(), ..ModelSpec::llama() });
    home.fails(&["run", &unknown, "-p", "x"], 1, "model-unsupported");
    let named = home.fails(&["plan", &unknown], 1, "model-unsupported");
    assert!(named.contains("'perceptron'"), "{named}");
}

/// A file from anywhere must not steer the terminal, and a list says in a word what is wrong.
#[test]
fn architectures_are_named() {
    let home = Home::new();
    let library = home.data().join("models");
    std::fs::create_dir_all(&library).unwrap();
    let evil = "perc\u{1b}[31meptron\u{9b}2J";
    let spec = ModelSpec { arch: evil.into(), ..ModelSpec::llama() };
    let path = library.join("strange.gguf");
    std::fs::write(&path, spec.build()).unwrap();
    let listed = home.run(&["list"]);
    assert!(listed.stdout.ends_with("not supported yet: perc[31meptron2J\n"), "{listed:?}");
    assert_eq!(home.json(&["list"])["models"][0]["architecture"], evil);
    let path = path.to_str().unwrap();
    for arguments in [["plan", path], ["inspect", path]] {
        let ended = home.run(&arguments);
        let printed = ended.stdout + &ended.stderr;
        assert!(printed.contains("perc[31meptron2J") && !printed.contains(['\u{1b}', '\u{9b}']), "{printed}");
    }
}

#[test]
fn what_does_not_fit_says_so() {
    let home = Home::new();
    let model = fixture(TINY);
    let ids = ["1"; 40].join(",");
    home.fails(&["generate", &model, "--ids", &ids, "-n", "1", "-c", "16"], 1, "context-full");
    let told = home.fails(&["run", &model, "-p", &"word ".repeat(2000)], 1, "context-full");
    assert!(told.contains("a larger -c makes room"), "{told}");
    home.fails(&["bench", &model, "-p", "64", "-c", "16"], 1, "context-full");
    let huge = home.model("deep.gguf", &ModelSpec { n_layer: 40, ..ModelSpec::llama() });
    // 16 million tokens of KV cache.
    home.fails(&["run", &huge, "-p", "x", "-c", "16777216", "-ctk", "f32", "-ctv", "f32"], 1, "ram-full");
}

#[test]
fn other_files() {
    let home = Home::new();
    let model = fixture(TINY);
    let folder = home.folder.path().to_str().unwrap().to_owned();
    home.fails(&["perplexity", &model, "--file", &home.path("none")], 1, "file-missing");
    home.fails(&["logits", &model, "--ids", "1", "-o", &folder], 1, "file-access");
    let template = home.file("t.jinja", b"{{ raise_exception('no') }}");
    let input = home.file("input.json", br#"{"messages": []}"#);
    home.fails(&["render", "--template", &template, "--input", &input], 1, "template");
    let broken = home.file("broken.json", b"{");
    home.fails(&["render", "--template", &template, "--input", &broken], 2, "usage");
}

#[test]
fn no_network_is_said() {
    let home = Home::new();
    home.fails(&["search", "qwen"], 1, "offline");
    home.fails(&["files", "a/b"], 1, "offline");
    home.fails(&["pull", "a/b"], 1, "offline");
    home.fails(&["plan", "a/b/c.gguf"], 1, "offline");
    home.fails(&["search", "qwen", "--endpoint", "ftp://x"], 2, "usage");
}

/// As in `headroom ... | head -1`.
#[test]
fn a_closed_pipe_is_the_end() {
    let home = Home::new();
    let model = home.model("m.gguf", &ModelSpec { n_ctx: 1 << 20, ..ModelSpec::llama() });
    let commands: &[&[&str]] =
        &[&["inspect", &model], &["run", &model, "-p", "x", "--raw", "-c", "20000", "-n", "19000"]];
    for arguments in commands {
        let mut child = home.spawn(arguments);
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0]).unwrap();
        drop(out);
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!(ended.status, 0, "{ended:?}");
    }
}

/// In a small file system of our own, where the system lets everybody mount one.
#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_no_part_of_an_output_stays() {
    let home = Home::new();
    let small = home.path("small");
    std::fs::create_dir(&small).unwrap();
    let script =
        "mount -t tmpfs -o size=8k none \"$SMALL\" && \"$0\" \"$@\"; status=$?; ls -A \"$SMALL\"; exit $status";
    let within = |program: &mut std::process::Command| {
        let mut shell = std::process::Command::new("unshare");
        shell.args(["-rm", "sh", "-c", script]).arg(program.get_program()).args(program.get_args());
        program.get_envs().for_each(|(name, value)| match value {
            Some(value) => drop(shell.env(name, value)),
            None => drop(shell.env_remove(name)),
        });
        shell.env("SMALL", &small).output()
    };
    if !within(&mut std::process::Command::new("true")).is_ok_and(|probe| probe.status.success()) {
        eprintln!("left out: this system does not let us mount a file system");
        return;
    }
    let (model, out) = (fixture(TINY), home.path("small/out.f32"));
    let ids = vec!["1"; 64].join(",");
    let full = ended(within(&mut home.command(&["logits", &model, "--ids", &ids, "-o", &out])).unwrap());
    assert_eq!((full.status, full.stdout.as_str()), (1, ""), "{}", full.stderr);
    assert!(full.stderr.contains("error [disk-full]: "), "{}", full.stderr);
}

#[cfg(unix)]
#[test]
fn an_output_may_go_to_a_device() {
    let home = Home::new();
    let ended = home.run(&["logits", &fixture(TINY), "--ids", "1", "-o", "/dev/null"]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    home.fails(&["logits", &fixture(TINY), "--ids", "1", "-o", &home.path("no/out.f32")], 1, "file-missing");
}
