//! The emulator's tensor cores beside whole matrices in f64, and what is made of them for GPUs that have smaller ones.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // a test

mod common;

use backend_cuda::Architecture::{self, Compute75, Compute80};
use common::library::compile_for;
use common::random::Random;
use half::{bf16, f16};
use std::ffi::{c_char, c_int, c_void};

type Run = unsafe extern "C" fn(*const c_char, *const c_void, usize, *const u32, *const u32, usize, u64) -> c_int;

/// `FragmentArgs` of `emulator/fragments.cpp`.
#[repr(C)]
struct Arguments {
    a: *const f32,
    b: *const f32,
    c: *const f32,
    d: *mut f32,
    kind: i32,
    unused: i32,
}

/// A kind of product: what its factors are rounded to, how large they are, rows and depth.
struct Kind {
    rounded: fn(f32) -> f32,
    spread: f32,
    rows: usize,
    depth: usize,
    whole: bool,
}

const fn halves(rounded: fn(f32) -> f32, depth: usize) -> Kind {
    Kind { rounded, spread: 3.0, rows: 16, depth, whole: false }
}

const fn bytes(rows: usize, depth: usize) -> Kind {
    Kind { rounded: f32::round, spread: 127.0, rows, depth, whole: true }
}

fn to_f16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

fn to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// By their numbers in `emulator/fragments.cpp`.
const KINDS: [Kind; 6] =
    [halves(to_f16, 16), halves(to_bf16, 16), bytes(16, 32), bytes(16, 16), bytes(8, 16), halves(to_f16, 8)];

#[test]
fn products_of_whole_matrices() {
    products(Compute80, &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn products_made_of_smaller_ones() {
    products(Compute75, &[0, 2, 3, 4, 5]);
}

fn products(architecture: Architecture, kinds: &[usize]) {
    let path = compile_for("emulator/fragments.cpp", architecture.name());
    // SAFETY: the library was made from our sources; it runs nothing but constructors that fill a list.
    let library = unsafe { libloading::Library::new(path) }.unwrap();
    // SAFETY: that is its type.
    let run = unsafe { library.get::<Run>(b"emulator_launch\0") }.unwrap();
    for &kind in kinds {
        let Kind { rounded, spread, rows, depth, whole } = KINDS[kind];
        for seed in 0..20 {
            let mut random = Random(seed);
            let mut some =
                |count, spread| -> Vec<f32> { random.floats(count, spread).into_iter().map(rounded).collect() };
            let (a, b, c) = (some(rows * depth, spread), some(depth * 8, spread), some(rows * 8, 9.0));
            let mut d = vec![f32::NAN; rows * 8];
            let arguments = Arguments {
                a: a.as_ptr(),
                b: b.as_ptr(),
                c: c.as_ptr(),
                d: d.as_mut_ptr(),
                kind: kind as i32,
                unused: 0,
            };
            let (size, one) = (size_of::<Arguments>(), [1u32, 1, 1]);
            // SAFETY: the kernel's arguments, with matrices of the sizes that it names.
            let result = unsafe {
                run(
                    c"fragments".as_ptr(),
                    (&raw const arguments).cast(),
                    size,
                    one.as_ptr(),
                    [32, 1, 1].as_ptr(),
                    0,
                    seed,
                )
            };
            assert_eq!(result, 0);
            for (i, actual) in d.iter().enumerate() {
                let (row, column) = (i / 8, i % 8);
                let term = |k: usize| f64::from(a[row * depth + k]) * f64::from(b[k * 8 + column]);
                let start = f64::from(c[i]);
                let (sum, size) =
                    (0..depth).fold((start, start.abs()), |(sum, size), k| (sum + term(k), size + term(k).abs()));
                // Integers are exact; sums of halves are cut off twice at most, to 24 bits each.
                let allowed = if whole { 0.0 } else { 2.0 * size * 2f64.powi(-23) };
                let error = (f64::from(*actual) - sum).abs();
                assert!(error <= allowed, "kind {kind}: [{row}, {column}] is {actual}, not {sum}");
            }
        }
    }
}
