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

/// Values of a row that a thread asks for before it uses the first: for few rows, waiting is all that takes time.
const int AT_ONCE = 8;

/// A thread's values from `first` on, `step` apart; 0 past the end, and where there is no row.
DEVICE void load_some(const float *row, int first, int step, int dim, float (&values)[AT_ONCE]) {
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) values[k] = row && first + k * step < dim ? row[first + k * step] : 0.0f;
}

/// Normalises a row with a block, or, for rows so short that a block is one, with a warp: both add in the same order. `out` may
/// be `x`. `rounded` is where the row's rounding begins, or null; if not, the row is whole blocks of 32.
template <bool WARP> DEVICE void norm_row(const NormSpec &a, const float *x, float *out, Activations *rounded, float *scratch) {
    const int begin = WARP ? lane() : threadIdx.x, step = WARP ? 32 : blockDim.x, dim = a.dim;
    const auto total = [scratch](float sum) { return WARP ? warp_sum(sum) : block_sum(sum, scratch); };
    float values[AT_ONCE];
    float mean = 0;
    if (a.layer) {
        float sum = 0;
        for (int i = begin; i < dim; i += AT_ONCE * step) {
            load_some(x, i, step, dim, values);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++)
                if (i + k * step < dim) sum += values[k];
        }
        mean = total(sum) / float(dim);
    }
    float squares = 0;
    for (int i = begin; i < dim; i += AT_ONCE * step) {
        load_some(x, i, step, dim, values);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (i + k * step < dim) squares = fmaf(values[k] - mean, values[k] - mean, squares);
    }
    const float factor = 1.0f / sqrtf(total(squares) / float(dim) + a.eps);
    for (int i = begin; i < dim; i += AT_ONCE * step) {
        float weight[AT_ONCE], bias[AT_ONCE];
        load_some(x, i, step, dim, values);
        load_some(a.weight, i, step, dim, weight);
        load_some(a.bias, i, step, dim, bias);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const int at = i + k * step;
            if (at >= dim) break;
            float y = (values[k] - mean) * factor;
            if (a.weight) y *= weight[k];
            if (a.bias) y += bias[k];
            out[at] = y;
            if (rounded) round_to(rounded[at / 32], y);
        }
    }
}
