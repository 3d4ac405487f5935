// Products of many rows of activations (prompts). A block computes a tile of TILE x TILE results. Its eight warps share the
// steps of the rows between them, one partial sum each, so that results have the bits of matvec.cu.
#include "dot.h"

struct MatMulArgs {
    const uint8_t *weight;
    const void *input;     // Activations or f32, by the weight's type
    const float *bias;     // [rows] or null
    float *out;            // [n, rows]
    int64_t row_bytes;
    float scale;
    int32_t rows, cols, n;
};

const int TILE = 32;
// A lane has 4 rows of weights and 8 rows of activations: LEFT lanes side by side have all rows of the tile.
const int LEFT = 8, RIGHT = 4;

template <class Dot> struct Panel {
    typename Dot::Left left[TILE];
    typename Dot::Right right[TILE];
};

template <class Dot> DEVICE void matmul(const MatMulArgs &a) {
    // First one panel for each warp, then the partial sums [PARTS][TILE][TILE].
    DYNAMIC_SHARED(char, shared);
    Panel<Dot> &panel = reinterpret_cast<Panel<Dot> *>(shared)[threadIdx.x / 32];
    const int part = threadIdx.x / 32, row_base = blockIdx.x * TILE, token_base = blockIdx.y * TILE;
    const int my_left = lane() % LEFT, my_right = lane() / LEFT;
    // Past the ends the last row is loaded; its results are not stored.
    const int row = row_base + lane() < a.rows ? row_base + lane() : a.rows - 1;
    const int token = token_base + lane() < a.n ? token_base + lane() : a.n - 1;
    const uint8_t *weights = a.weight + row * a.row_bytes;

    float sum[TILE / RIGHT][TILE / LEFT];
    for (int t = 0; t < TILE / RIGHT; t++)
        for (int r = 0; r < TILE / LEFT; r++) sum[t][r] = 0;
    const int steps = Dot::steps(a.cols);
    for (int step = part; step < steps; step += PARTS) {
        Dot::left(weights, step, a.cols, panel.left[lane()]);
        Dot::right(a.input, token, step, a.cols, panel.right[lane()]);
        __syncwarp();
        typename Dot::Left w[TILE / LEFT];
        for (int r = 0; r < TILE / LEFT; r++) w[r] = panel.left[my_left + LEFT * r];
        for (int t = 0; t < TILE / RIGHT; t++) {
            const typename Dot::Right x = panel.right[my_right + RIGHT * t];
            for (int r = 0; r < TILE / LEFT; r++) sum[t][r] = Dot::add(w[r], x, sum[t][r]);
        }
        __syncwarp();
    }

    __syncthreads();
    float *parts = reinterpret_cast<float *>(shared);
    for (int t = 0; t < TILE / RIGHT; t++)
        for (int r = 0; r < TILE / LEFT; r++)
            parts[(part * TILE + my_right + RIGHT * t) * TILE + my_left + LEFT * r] = sum[t][r];
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE; i += 32 * PARTS) {
        const int to_row = row_base + i % TILE, to_token = token_base + i / TILE;
        if (to_row >= a.rows || to_token >= a.n) continue;
        float total = sum_parts(parts + i, TILE * TILE) * a.scale;
        if (a.bias) total += a.bias[to_row];
        a.out[int64_t(to_token) * a.rows + to_row] = total;
    }
}

#define PACKED(name, Type) KERNEL(matmul_##name, MatMulArgs, 32 * PARTS) { matmul<PackedDot<Type>>(a); }
#define PLAIN(name, Type) KERNEL(matmul_##name, MatMulArgs, 32 * PARTS) { matmul<FloatDot<Type>>(a); }
FOR_TYPES(PACKED, PLAIN)
