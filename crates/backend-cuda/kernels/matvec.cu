// Products of few rows of activations (generation), and of experts: the speed is that of reading the weights.
#include "product.h"

const int WARPS = 4, WARP_ROWS = 32 / PARTS, BLOCK_ROWS = WARPS * WARP_ROWS;

/// What a block is of.
struct Matrix {
    const uint8_t *weights;
    const float *bias;
    float *out;
    float scale;
    int rows, row_base;
    bool known;               // whether the expert exists

    DEVICE Matrix(const VectorArgs &a, int token)
        : weights(a.weight), bias(a.bias), out(a.out), scale(a.scale), rows(a.rows), known(true) {
        int block = blockIdx.x;
        // Chosen among values and not by an index: arguments are no memory to look something up in.
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
            const bool later = block >= blocks;
            const Further next = a.further[i];
            block = later ? block - blocks : block;
            weights = later ? next.weight : weights;
            bias = later ? next.bias : bias;
            out = later ? next.out : out;
            scale = later ? next.scale : scale;
            rows = later ? next.rows : rows;
        }
        row_base = block * BLOCK_ROWS;
        if (!a.ids) return;
        const uint32_t expert = a.ids[token];
        known = expert < uint32_t(a.experts);
        if (!known) return;
        weights += expert * a.expert_bytes;
        if (bias) bias += int64_t(expert) * rows;
        if (a.scales) scale = a.scales[expert];
    }
    /// Past the end it is the last row.
    DEVICE int row(int i) const { return row_base + i < rows ? row_base + i : rows - 1; }
    DEVICE void store(const VectorArgs &a, int i, int token, float total) const {
        const int to = row_base + i;
        if (to >= rows || token >= a.n) return;
        total *= scale;
        if (bias) total += bias[to];
        // An expert that does not exist has no result.
        out[int64_t(token) * rows + to] = known ? total : NOT_A_NUMBER;
    }
};

/// Adds COUNT steps of a lane's part, from `round` on. Their weights are all asked for before the first is used: memory takes some
/// hundred cycles to answer, and small matrices have few lanes to ask it.
template <class Dot, int TOKENS, int COUNT>
DEVICE void add_rounds(const VectorArgs &a, const uint8_t *weights, const int (&inputs)[TOKENS], int round, float (&sum)[TOKENS]) {
    typename Dot::Left w[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; k++) Dot::left(weights, PARTS * (round + k) + lane() % PARTS, a.cols, a.table, w[k]);
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        typename Dot::Right x[COUNT];
#pragma unroll
        for (int k = 0; k < COUNT; k++) Dot::right(a.input, inputs[t], PARTS * (round + k) + lane() % PARTS, a.cols, x[k]);
#pragma unroll
        for (int k = 0; k < COUNT; k++) sum[t] = Dot::add(w[k], x[k], sum[t]);
    }
}

// Eight lanes, one partial sum each, work on a row of weights with TOKENS rows of activations.
template <class Dot, int TOKENS> DEVICE void matvec(const VectorArgs &a) {
    // Of four tokens, activations take the registers.
    const int DEPTH = TOKENS == 1 ? Dot::DEPTH : Dot::DEPTH / 2;
    const int part = lane() % PARTS, own = threadIdx.x / PARTS, first = blockIdx.y * TOKENS;
    const Matrix matrix(a, first);
    // Rows past the end do the last row's work: all lanes take part in the sums. So it is with tokens.
    const uint8_t *weights = matrix.weights + matrix.row(own) * a.row_bytes;
    int inputs[TOKENS];
    for (int t = 0; t < TOKENS; t++) inputs[t] = (first + t < a.n ? first + t : a.n - 1) / a.slots;

    float sum[TOKENS];
    for (int t = 0; t < TOKENS; t++) sum[t] = 0;
    const int rounds = (Dot::steps(a.cols) - part + PARTS - 1) / PARTS;
    int round = 0;
    for (; round + DEPTH <= rounds; round += DEPTH) add_rounds<Dot, TOKENS, DEPTH>(a, weights, inputs, round, sum);
    for (; round < rounds; round++) add_rounds<Dot, TOKENS, 1>(a, weights, inputs, round, sum);
    for (int t = 0; t < TOKENS; t++) {
        const float total = warp_sum<PARTS>(sum[t]);
        if (part == 0) matrix.store(a, own, first + t, total);
    }
}

#if __CUDA_ARCH__ >= 750
/// Weights of 16 bits, with the products of matmul.cu: a block has 16 rows, each of its warps two of their partial sums.
template <class Type, int TOKENS> DEVICE void matvec_halves(const VectorArgs &a) {
    const int ROWS = BLOCK_ROWS, g = lane() / 4, warp = threadIdx.x / 32;
    __shared__ float parts[PARTS * TOKENS * ROWS];
    const int first = blockIdx.y * TOKENS;
    const Matrix matrix(a, first);
    const HalfRows from = {matrix.weights, a.row_bytes, static_cast<const float *>(a.input), a.cols};
    const int rows[2] = {matrix.row(g), matrix.row(g + 8)};
    const int inputs[1] = {g < TOKENS && first + g < a.n ? (first + g) / a.slots : -1};

    float sum[2][4];
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < 4; i++) sum[part][i] = 0;
    const int steps = half_steps(a.cols);
    const auto add_all = [&](bool wide) {
        int step = warp;
        for (; step + WARPS < steps; step += PARTS)
#pragma unroll
            for (int part = 0; part < 2; part++)
                add_halves<Type, 1, 1>(from, rows, inputs, wide, step + WARPS * part, sum[part]);
        if (step < steps) add_halves<Type, 1, 1>(from, rows, inputs, wide, step, sum[0]);
    };
    if (wide_rows(a)) add_all(true);
    else add_all(false);
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < 4; i++) {
            const int token = lane() % 4 * 2 + i % 2;
            if (token < TOKENS) parts[((warp + WARPS * part) * TOKENS + token) * ROWS + g + i / 2 * 8] = sum[part][i];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < TOKENS * ROWS; i += 32 * WARPS)
        matrix.store(a, i % ROWS, first + i / ROWS, sum_parts(parts + i, TOKENS * ROWS));
}
#endif

// Four blocks fit a multiprocessor, with 128 registers: left to itself the compiler takes some 40, and loads one step after the other.
#define KERNELS(name, product)                                                              \
    KERNEL_BLOCKS(matvec_##name##_1, VectorArgs, 32 * WARPS, 4) { product<1>(a); }           \
    KERNEL_BLOCKS(matvec_##name##_4, VectorArgs, 32 * WARPS, 4) { product<4>(a); }
#define PACKED(name, Type)                                                                             \
    template <int TOKENS> DEVICE void product_##name(const VectorArgs &a) { matvec<PackedDot<Type, false>, TOKENS>(a); } \
    KERNELS(name, product_##name)
#define PLAIN(name, Type)                                                                              \
    template <int TOKENS> DEVICE void product_##name(const VectorArgs &a) {                             \
        if (wide_rows(a) && a.cols % 8 == 0) matvec<FloatDot<Type, true>, TOKENS>(a);                   \
        else matvec<FloatDot<Type>, TOKENS>(a);                                                        \
    }                                                                                                  \
    KERNELS(name, product_##name)
#if __CUDA_ARCH__ >= 750
#define HALF(name, Type)                                                                               \
    template <int TOKENS> DEVICE void product_##name(const VectorArgs &a) { matvec_halves<Type, TOKENS>(a); } \
    KERNELS(name, product_##name)
#else
#define HALF PLAIN
#endif
#if __CUDA_ARCH__ >= 800
#define BFLOAT HALF
#else
#define BFLOAT PLAIN
#endif
FOR_TYPES(PACKED, HALF, BFLOAT, PLAIN)
