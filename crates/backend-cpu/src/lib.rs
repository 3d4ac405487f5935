//! CPU device: kernels chosen at run time, thread pool, byte-limited test device.
