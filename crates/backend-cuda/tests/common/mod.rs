//! The kernels' sources, compiled as host C++ over `emulator` and run on the CPU under the real device.
//! Needs g++ (or the compiler in CXX's place on the path as `c++`) on x86-64 Linux.
#![allow(dead_code)]

pub mod driver;
pub mod emulator;
pub mod fake;
pub mod library;
pub mod pair;
pub mod random;
