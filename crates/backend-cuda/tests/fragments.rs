//! The emulator's tensor cores beside whole matrices in f64.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // a test

mod common;

use common::library::compile;
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

#[test]
fn products_of_whole_matrices() {
    // SAFETY: the library was made from our sources; it runs nothing but constructors that fill a list.
    let library = unsafe { libloading::Library::new(compile("emulator/fragments.cpp")) }.unwrap();
    // SAFETY: that is its type.
    let run = unsafe { library.get::<Run>(b"emulator_launch\0") }.unwrap();
    let rounded: [fn(f32) -> f32; 3] = [|x| f16::from_f32(x).to_f32(), |x| bf16::from_f32(x).to_f32(), |x| x.round()];
    for (kind, rounded) in rounded.into_iter().enumerate() {
        for seed in 0..20 {
            let mut random = Random(seed);
            let (depth, spread) = if kind == 2 { (32, 127.0) } else { (16, 3.0) };
            let mut some =
                |count, spread| -> Vec<f32> { random.floats(count, spread).into_iter().map(rounded).collect() };
            let (a, b, c, mut d) =
                (some(16 * depth, spread), some(depth * 8, spread), some(16 * 8, 9.0), vec![f32::NAN; 128]);
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
                // Integers are exact; sums of halves are cut off twice, to 24 bits each.
                let allowed = if kind == 2 { 0.0 } else { 2.0 * size * 2f64.powi(-23) };
                let error = (f64::from(*actual) - sum).abs();
                assert!(error <= allowed, "kind {kind}: [{row}, {column}] is {actual}, not {sum}");
            }
        }
    }
}
