// RMS and layer normalisation of a row.
#pragma once
#include "rounding.h"

struct NormSpec {
    const float *weight;   // [dim] or null
    const float *bias;     // [dim] or null
    int32_t dim;
    int32_t layer;         // 1: subtract the mean
    float eps;
};

/// Normalises a row with a block, or, for rows so short that a block is one, with a warp: both add in the same order. `out` may
/// be `x`. `rounded` is where the row's rounding begins, or null; if not, the row is whole blocks of 32.
template <bool WARP> DEVICE void norm_row(const NormSpec &a, const float *x, float *out, Activations *rounded, float *scratch) {
    const int first = WARP ? lane() : threadIdx.x, step = WARP ? 32 : blockDim.x;
    const auto total = [scratch](float sum) { return WARP ? warp_sum(sum) : block_sum(sum, scratch); };
    float mean = 0;
    if (a.layer) {
        float sum = 0;
        for (int i = first; i < a.dim; i += step) sum += x[i];
        mean = total(sum) / float(a.dim);
    }
    float squares = 0;
    for (int i = first; i < a.dim; i += step) squares = fmaf(x[i] - mean, x[i] - mean, squares);
    const float factor = 1.0f / sqrtf(total(squares) / float(a.dim) + a.eps);
    for (int i = first; i < a.dim; i += step) {
        float y = (x[i] - mean) * factor;
        if (a.weight) y *= a.weight[i];
        if (a.bias) y += a.bias[i];
        out[i] = y;
        if (rounded) round_to(rounded[i / 32], y);
    }
}
