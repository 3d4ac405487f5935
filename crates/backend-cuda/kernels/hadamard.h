// The orthonormal Walsh-Hadamard transform.
#pragma once
#include "device.h"

/// Transforms `block` values, a power of two, with a block of threads, or with a warp: both compute the same. `values` has room
/// for them; what has transformed them last is done (a barrier), and so is what wrote `x`.
template <bool WARP> DEVICE void transform(float *x, float *values, int block, float scale) {
    const int first = WARP ? lane() : threadIdx.x, step = WARP ? 32 : blockDim.x;
    const auto together = [] {
        if (WARP) __syncwarp();
        else __syncthreads();
    };
    for (int i = first; i < block; i += step) values[i] = x[i];
    for (int apart = 1; apart < block; apart *= 2) {
        together();
        for (int pair = first; pair < block / 2; pair += step) {
            const int low = (pair & ~(apart - 1)) * 2 + (pair & (apart - 1));
            const float p = values[low], q = values[low + apart];
            values[low] = p + q;
            values[low + apart] = p - q;
        }
    }
    together();
    for (int i = first; i < block; i += step) x[i] = values[i] * scale;
}
