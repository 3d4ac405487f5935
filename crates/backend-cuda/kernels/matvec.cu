// Products of few rows of activations (generation), and of experts: the speed is that of reading the weights.
#include "product.h"

const int WARPS = 4, WARP_ROWS = 32 / PARTS;

// Eight lanes, one partial sum each, work on a row of weights with TOKENS rows of activations.
template <class Dot, int TOKENS> DEVICE void matvec(const ProductArgs &a) {
    const int part = lane() % PARTS;
    const int row = (blockIdx.x * WARPS + threadIdx.x / 32) * WARP_ROWS + lane() / PARTS;
    const int first = blockIdx.y * TOKENS;
    const uint32_t expert = a.ids ? a.ids[first] : 0;
    const bool known = expert < uint32_t(a.experts);
    // Rows past the end do the last row's work: all lanes take part in the sums.
    const uint8_t *weights = a.weight + (row < a.rows ? row : a.rows - 1) * a.row_bytes;
    if (known) weights += expert * a.expert_bytes;

    float sum[TOKENS];
    for (int t = 0; t < TOKENS; t++) sum[t] = 0;
    const int steps = Dot::steps(a.cols);
    for (int step = part; step < steps; step += PARTS) {
        typename Dot::Left w;
        Dot::left(weights, step, a.cols, a.table, w);
        for (int t = 0; t < TOKENS; t++) {
            if (first + t >= a.n) break;
            typename Dot::Right x;
            Dot::right(a.input, (first + t) / a.slots, step, a.cols, x);
            sum[t] = Dot::add(w, x, sum[t]);
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        float total = warp_sum<PARTS>(sum[t]);
        if (part != 0 || row >= a.rows || first + t >= a.n) continue;
        total *= a.scales && known ? a.scales[expert] : a.scale;
        if (a.bias && known) total += a.bias[int64_t(expert) * a.rows + row];
        // An expert that does not exist has no result.
        a.out[int64_t(first + t) * a.rows + row] = known ? total : NOT_A_NUMBER;
    }
}

#define MATVEC(name, Dot)                                                                   \
    KERNEL(matvec_##name##_1, ProductArgs, 32 * WARPS) { matvec<Dot, 1>(a); }                \
    KERNEL(matvec_##name##_4, ProductArgs, 32 * WARPS) { matvec<Dot, 4>(a); }
#define PACKED(name, Type) MATVEC(name, PackedDot<Type>)
#define PLAIN(name, Type) MATVEC(name, FloatDot<Type>)
FOR_TYPES(PACKED, PLAIN)
