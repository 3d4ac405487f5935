// Whole rows: scaled each by its own factor, or copied between layouts.
#include "device.h"

struct ScaleRowsArgs {
    float *x;               // [rows, dim]
    const float *factors;   // [rows]
    int32_t rows, dim;
};

KERNEL(scale_rows, ScaleRowsArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index < int64_t(a.rows) * a.dim) a.x[index] *= a.factors[index / a.dim];
}

struct CopyRowsArgs {
    const uint32_t *input;   // words: nothing is rounded, NaN keeps its bits
    uint32_t *out;
    int64_t input_stride, out_stride;
    int32_t rows, dim;
};

KERNEL(copy_rows, CopyRowsArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= int64_t(a.rows) * a.dim) return;
    const int64_t row = index / a.dim, i = index % a.dim;
    a.out[row * a.out_stride + i] = a.input[row * a.input_stride + i];
}
