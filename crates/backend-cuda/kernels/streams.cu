// What a stream of several parts needs, and sparse gates.
#include "device.h"

struct MixArgs {
    const float *input;     // [n, inputs, dim]
    const float *weights;   // [n, outputs, inputs] or null
    float *out;             // [outputs, dim] every out_stride
    int64_t out_stride;
    int32_t n, inputs, outputs, dim;
    float offset;
    int32_t unused;
};

KERNEL(mix, MixArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t row = index / a.dim, i = index % a.dim, token = row / a.outputs;
    if (token >= a.n) return;
    float *out = a.out + token * a.out_stride + (row % a.outputs) * a.dim + i;
    float sum = *out;
    for (int k = 0; k < a.inputs; k++) {
        const float weight = a.offset + (a.weights ? a.weights[row * a.inputs + k] : 0.0f);
        sum += weight * a.input[(token * a.inputs + k) * a.dim + i];
    }
    *out = sum;
}

struct MatchLengthArgs {
    float *x;            // [rows, dim]
    const float *like;   // [dim] every like_stride
    int64_t like_stride;
    int32_t rows, dim;
};

// A block has a row.
KERNEL(match_length, MatchLengthArgs, 256) {
    __shared__ float scratch[32];
    float *x = a.x + int64_t(blockIdx.x) * a.dim;
    const float *like = a.like + int64_t(blockIdx.x) * a.like_stride;
    float own = 0, target = 0;
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) {
        own = fmaf(x[i], x[i], own);
        target = fmaf(like[i], like[i], target);
    }
    own = block_sum(own, scratch);
    target = block_sum(target, scratch);
    const float factor = own == 0 ? 0.0f : sqrtf(target / own);
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) x[i] *= factor;
}

struct SparsifyArgs {
    float *x;   // [rows, dim]
    int32_t rows, dim;
    float deviations;
    int32_t unused;
};

// A block has a row.
KERNEL(sparsify, SparsifyArgs, 256) {
    __shared__ float scratch[32];
    float *x = a.x + int64_t(blockIdx.x) * a.dim;
    float sum = 0, squares = 0;
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) sum += x[i];
    const float mean = block_sum(sum, scratch) / float(a.dim);
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) squares = fmaf(x[i] - mean, x[i] - mean, squares);
    const float deviation = sqrtf(block_sum(squares, scratch) / fmaxf(float(a.dim) - 1.0f, 1.0f));
    const float cut = mean + a.deviations * deviation;
    // max would swallow NaN.
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) x[i] = x[i] <= cut ? 0.0f : x[i] - cut;
}

struct ScaleColumnsArgs {
    float *x;               // [rows, dim]
    const float *factors;   // [dim]
    int32_t rows, dim;
};

KERNEL(scale_columns, ScaleColumnsArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index < int64_t(a.rows) * a.dim) a.x[index] *= a.factors[index % a.dim];
}
