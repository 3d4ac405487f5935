//! The device: its operations beside the CPU's, and whole models on it. One program, which the GPU suite takes along.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // a test

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod driver;
mod engine;
mod held;
mod launches;
mod operations;
mod products;
mod recurrent;
mod rounding;
mod spilling;
