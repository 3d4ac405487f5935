// RMS and layer normalisation: a block has a row.
#include "rounding.h"

struct NormArgs {
    const float *input;
    const float *weight;   // [dim] or null
    const float *bias;     // [dim] or null
    float *out;            // may be the input
    Activations *rounded;  // of the result, or null; if not, rows are whole blocks of 32
    int32_t rows, dim;
    int32_t layer;         // 1: subtract the mean
    float eps;
};

KERNEL(norm, NormArgs, 256) {
    __shared__ float scratch[32];
    const float *x = a.input + int64_t(blockIdx.x) * a.dim;
    float *out = a.out + int64_t(blockIdx.x) * a.dim;
    float mean = 0;
    if (a.layer) {
        float sum = 0;
        for (int i = threadIdx.x; i < a.dim; i += blockDim.x) sum += x[i];
        mean = block_sum(sum, scratch) / float(a.dim);
    }
    float squares = 0;
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) squares = fmaf(x[i] - mean, x[i] - mean, squares);
    const float factor = 1.0f / sqrtf(block_sum(squares, scratch) / float(a.dim) + a.eps);
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float y = (x[i] - mean) * factor;
        if (a.weight) y *= a.weight[i];
        if (a.bias) y += a.bias[i];
        out[i] = y;
        if (a.rounded) round_to(a.rounded[(int64_t(blockIdx.x) * a.dim + i) / 32], y);
    }
}
