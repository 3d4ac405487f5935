// Norms: a block has a row. Of the sum of two, if that is wanted.
#include "norm.h"

struct NormArgs {
    float *input;
    const float *a, *b;     // [rows, dim]: the input is written first, a + scale * b; or null
    const float *weight;    // [dim] or null
    const float *bias;      // [dim] or null
    float *out;             // may be the input, a or b
    Activations *rounded;   // of the result, or null; if not, rows are whole blocks of 32
    int32_t rows, dim;
    int32_t layer;          // 1: subtract the mean
    float eps;
    float scale;
    int32_t unused;
};

// Two blocks fit a multiprocessor: registers for what is asked for together.
KERNEL_BLOCKS(norm, NormArgs, 256, 2) {
    __shared__ float scratch[32];
    const int64_t row = int64_t(blockIdx.x) * a.dim;
    float *x = a.input + row;
    // Every thread reads what it has written itself.
    if (a.b)
        for (int i = threadIdx.x; i < a.dim; i += AT_ONCE * blockDim.x) {
            float one[AT_ONCE], other[AT_ONCE];
            load_some(a.a + row, i, blockDim.x, a.dim, one);
            load_some(a.b + row, i, blockDim.x, a.dim, other);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++)
                if (i + k * int(blockDim.x) < a.dim) x[i + k * int(blockDim.x)] = one[k] + a.scale * other[k];
        }
    const NormSpec spec = {a.weight, a.bias, a.dim, a.layer, a.eps};
    norm_row<false>(spec, x, a.out + row, a.rounded ? a.rounded + row / 32 : nullptr, scratch);
}
