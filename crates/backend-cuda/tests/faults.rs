//! What the emulator must notice in a kernel. It ends the program then, so each fault has a process of its own.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // a test

mod common;

use common::library::compile;
use std::ffi::{CString, c_char, c_int, c_void};
use std::process::Command;

type Run = unsafe extern "C" fn(*const c_char, *const c_void, usize, *const u32, *const u32, usize, u64) -> c_int;

/// `FaultArgs` of `emulator/faults.cpp`, and of what is in `emulator/faults.ptx`.
#[repr(C)]
struct Arguments {
    out: *mut f32,
    fault: i32,
    bytes: i32,
}

/// Runs a kernel of a source on two blocks.
fn run(source: &str, kernel: &str, threads: u32, shared: usize, arguments: &Arguments) {
    // SAFETY: the library was made from our sources; it runs nothing but constructors that fill a list.
    let library = unsafe { libloading::Library::new(compile(source)) }.unwrap();
    // SAFETY: that is its type.
    let run = unsafe { library.get::<Run>(b"emulator_launch\0") }.unwrap();
    let name = CString::new(kernel).unwrap();
    let (grid, block) = ([2, 1, 1], [threads, 1, 1]);
    let from = (&raw const *arguments).cast();
    // SAFETY: these are its arguments; faults are in memory of the emulator's own, or end the program before they do harm.
    let result = unsafe { run(name.as_ptr(), from, size_of::<Arguments>(), grid.as_ptr(), block.as_ptr(), shared, 0) };
    assert_eq!(result, 0);
}

/// Source, kernel, number of the fault, and what the emulator says; nothing of what is no fault.
const FAULTS: [(&str, &str, i32, &str); 11] = [
    ("emulator/faults.cpp", "faults", 0, ""),
    ("emulator/faults.cpp", "faults", 1, "something was written behind shared memory"),
    ("emulator/faults.cpp", "faults", 2, "a warp operation diverges"),
    ("emulator/faults.cpp", "faults", 3, "deadlock"),
    ("emulator/faults.cpp", "faults", 4, "a lane is not in the mask of its warp operation"),
    ("emulator/faults.cpp", "faults", 5, "a shuffle reads an inactive lane"),
    ("emulator/faults.cpp", "faults", 6, "a warp operation diverges"),
    ("emulator/faults.cpp", "faults", 7, "a load is not aligned"),
    ("emulator/faults.cpp", "faults", 8, "permute with a sign bit"),
    ("emulator/faults.cpp", "faults", 9, "deadlock"),
    ("emulator/faults.ptx", "behind", 0, "dynamic shared memory ends before this"),
];

#[test]
fn faults_are_noticed() {
    let number = std::env::var("HEADROOM_FAULT").ok().map(|number| number.parse::<usize>().unwrap());
    if let Some(number) = number {
        let (source, kernel, fault, _) = FAULTS[number];
        let mut out = [0.0; 8];
        return run(source, kernel, 64, 20, &Arguments { out: out.as_mut_ptr(), fault, bytes: 20 });
    }
    for (number, (source, kernel, fault, expected)) in FAULTS.into_iter().enumerate() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "faults_are_noticed", "--nocapture"]).env("HEADROOM_FAULT", number.to_string());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let what = format!("{source} {kernel} {fault}: {said}");
        assert_eq!(output.status.success(), expected.is_empty(), "{what}");
        assert!(said.contains(expected), "not \"{expected}\", {what}");
    }
}

/// Shared memory of either kind has nothing of the block before.
#[test]
fn shared_memory_is_spoiled_before_a_block() {
    let mut out = vec![0.0; 2 * 64 * 2];
    run("emulator/faults.cpp", "leftovers", 64, 256, &Arguments { out: out.as_mut_ptr(), fault: 0, bytes: 0 });
    let kept = out.iter().position(|x| !x.is_nan());
    assert_eq!(kept, None, "{out:?}");
}

/// So it is in what is translated from PTX, where a word is the same for loads and stores of every type.
#[test]
fn static_shared_memory_of_ptx_is_one() {
    let mut out = [0.0f32; 2];
    run("emulator/faults.ptx", "words", 1, 0, &Arguments { out: out.as_mut_ptr(), fault: 0, bytes: 0 });
    assert_eq!(out[0].to_bits(), 1_078_530_011);
    assert_eq!(out[1].to_bits(), u32::MAX, "what the block before left");
}

/// What the translator does not know is an error, also if it knows half of it.
#[test]
fn unknown_ptx_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unknown.ptx");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (line, is_known) in [
        ("setp.lt.s32 %p1, %r1, %r2", true),
        ("setp.lt.and.s32 %p1, %r1, %r2, %p2", false),
        ("fma.rn.f32 %f1, %f1, %f2, %f1", true),
        ("fma.rz.f32 %f1, %f1, %f2, %f1", false),
        ("fma.rn.sat.f32 %f1, %f1, %f2, %f1", false),
        ("mul.rz.f32 %f1, %f1, %f2", false),
        ("mul.hi.s32 %r1, %r1, %r2", false),
        ("cvt.rpi.f32.f32 %f1, %f2", false),
        ("cvt.rn.s32.f32 %r1, %f1", false),
        ("add.sat.s32 %r1, %r1, %r2", false),
        ("max.NaN.f32 %f1, %f1, %f2", false),
        ("lop3.b32 %r1, %r1, %r2, %r3, 1", false),
        ("atom.global.add.u32 %r1, [%rd1], %r2", false),
    ] {
        let declared = [("pred", "p"), ("b32", "r"), ("f32", "f"), ("b64", "rd")];
        let declared = declared.map(|(ty, name)| format!(".reg .{ty} %{name}<4>;\n"));
        let body = format!("{}{line};\nret;", declared.concat());
        let text = format!(".visible .entry one(.param .align 8 .b8 one_param_0[16]\n)\n{{\n{body}\n}}\n");
        std::fs::write(&path, text).unwrap();
        let output = Command::new("python3").arg(root.join("emulator/ptx.py")).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_known, "{line}: {said}");
        assert!(is_known || !said.contains("Traceback"), "{line}: {said}");
    }
}
