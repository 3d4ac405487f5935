//! Probe CPU, memory, disks and GPUs; measure bandwidths.
