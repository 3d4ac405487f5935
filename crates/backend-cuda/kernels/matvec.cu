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

#if __CUDA_ARCH__ >= 750
/// Weights of 16 bits, with the products of matmul.cu: a block has 16 rows, each of its warps two of their partial sums.
template <class Type, int TOKENS> DEVICE void matvec_halves(const ProductArgs &a) {
    const int ROWS = 16, g = lane() / 4, warp = threadIdx.x / 32;
    __shared__ float parts[PARTS * TOKENS * ROWS];
    const int first = blockIdx.y * TOKENS, row_base = blockIdx.x * ROWS;
    const uint32_t expert = a.ids ? a.ids[first] : 0;
    const bool known = expert < uint32_t(a.experts);
    const HalfRows from = {a.weight + (known ? expert * a.expert_bytes : 0), a.row_bytes, static_cast<const float *>(a.input), a.cols};
    int rows[2];
    for (int i = 0; i < 2; i++) rows[i] = row_base + g + 8 * i < a.rows ? row_base + g + 8 * i : a.rows - 1;
    const int inputs[1] = {g < TOKENS && first + g < a.n ? (first + g) / a.slots : -1};

    float sum[2][4];
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < 4; i++) sum[part][i] = 0;
    const bool wide = wide_rows(a);
    const int steps = half_steps(a.cols);
    for (int step = warp; step < steps; step += PARTS) {
        add_halves<Type, 1, 1>(from, rows, inputs, wide, step, sum[0]);
        if (step + WARPS < steps) add_halves<Type, 1, 1>(from, rows, inputs, wide, step + WARPS, sum[1]);
    }
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < 4; i++) {
            const int token = lane() % 4 * 2 + i % 2;
            if (token < TOKENS) parts[((warp + WARPS * part) * TOKENS + token) * ROWS + g + i / 2 * 8] = sum[part][i];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < TOKENS * ROWS; i += 32 * WARPS) {
        const int row = row_base + i % ROWS, token = first + i / ROWS;
        if (row >= a.rows || token >= a.n) continue;
        float total = sum_parts(parts + i, TOKENS * ROWS);
        total *= a.scales && known ? a.scales[expert] : a.scale;
        if (a.bias && known) total += a.bias[int64_t(expert) * a.rows + row];
        a.out[int64_t(token) * a.rows + row] = known ? total : NOT_A_NUMBER;
    }
}
#define HALF(name, Type)                                                                       \
    KERNEL_WIDE(matvec_##name##_1, ProductArgs, 32 * WARPS) { matvec_halves<Type, 1>(a); }      \
    KERNEL_WIDE(matvec_##name##_4, ProductArgs, 32 * WARPS) { matvec_halves<Type, 4>(a); }
#else
#define HALF PLAIN
#endif
#if __CUDA_ARCH__ >= 800
#define BFLOAT HALF
#else
#define BFLOAT PLAIN
#endif

#define MATVEC(name, Dot)                                                                   \
    KERNEL(matvec_##name##_1, ProductArgs, 32 * WARPS) { matvec<Dot, 1>(a); }                \
    KERNEL(matvec_##name##_4, ProductArgs, 32 * WARPS) { matvec<Dot, 4>(a); }
#define PACKED(name, Type) MATVEC(name, PackedDot<Type>)
#define PLAIN(name, Type) MATVEC(name, FloatDot<Type>)
FOR_TYPES(PACKED, HALF, BFLOAT, PLAIN)
