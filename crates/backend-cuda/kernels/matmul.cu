// Products of many rows of activations (prompts). A block computes a tile of TILE x TILE results. Its eight warps share the
// steps of the rows between them, one partial sum each, so that results have the bits of matvec.cu. Packed weights meet
// activations on tensor cores, where there are any: products are exact integers, so that bits are the same there too.
//
// With experts, a tile's rows of activations are those that one expert meets (groups.cu).
#include "product.h"

/// Results of a lane.
const int SUMS = TILE * TILE / 32;

template <class Dot> struct Panel {
    typename Dot::Left left[TILE];
    typename Dot::Right right[TILE];
};

// How a warp computes a step of a tile: which results a lane has, and how they grow.

/// Every lane multiplies 4 rows of weights and 8 rows of activations: LEFT lanes side by side have all rows of the tile.
template <class Dot> struct ByLanes {
    static const int LEFT = 8, RIGHT = 4;
    static DEVICE int row(int i) { return lane() % LEFT + LEFT * (i % 4); }
    static DEVICE int token(int i) { return lane() / LEFT + RIGHT * (i / 4); }
    static DEVICE void add(const Panel<Dot> &panel, float (&sum)[SUMS]) {
        typename Dot::Left w[TILE / LEFT];
        for (int r = 0; r < TILE / LEFT; r++) w[r] = panel.left[row(r)];
        for (int t = 0; t < TILE / RIGHT; t++) {
            const typename Dot::Right x = panel.right[token(4 * t)];
            for (int r = 0; r < TILE / LEFT; r++) sum[4 * t + r] = Dot::add(w[r], x, sum[4 * t + r]);
        }
    }
};

#if __CUDA_ARCH__ >= 800
/// Two times four products of 16 x 8 on tensor cores.
template <class Type> struct ByTensorCores {
    typedef PackedDot<Type> Dot;
    static DEVICE int row(int i) { return 16 * (i / 16) + lane() / 4 + i % 4 / 2 * 8; }
    static DEVICE int token(int i) { return i % 16 / 4 * 8 + lane() % 4 * 2 + i % 2; }
    static DEVICE void add(const Panel<Dot> &panel, float (&sum)[SUMS]) {
        const int group = lane() / 4, k = lane() % 4;
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const Chunk &upper = panel.left[16 * m + group], &lower = panel.left[16 * m + group + 8];
            const int a[4] = {upper.q[k], lower.q[k], upper.q[k + 4], lower.q[k + 4]};
#pragma unroll
            for (int n = 0; n < 4; n++) {
                const Activations &x = panel.right[8 * n + group];
                const int b[2] = {x.q[k], x.q[k + 4]};
                int first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
                if (Type::HALVES) {
                    mma16(first, a[0], a[1], b[0]);
                    mma16(second, a[2], a[3], b[1]);
                } else {
                    mma32(first, a, b);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float &s = sum[16 * m + 4 * n + i];
                    s = Dot::scaled(i < 2 ? upper : lower, panel.right[8 * n + 2 * k + i % 2], first[i], second[i], s);
                }
            }
        }
    }
};
#else
template <class Type> using ByTensorCores = ByLanes<PackedDot<Type>>;
#endif

template <class Dot, class Way> DEVICE void matmul(const ProductArgs &a) {
    // First one panel for each warp, then the partial sums [PARTS][TILE][TILE].
    DYNAMIC_SHARED(char, shared);
    Panel<Dot> &panel = reinterpret_cast<Panel<Dot> *>(shared)[threadIdx.x / 32];
    const int part = threadIdx.x / 32, row_base = blockIdx.x * TILE;
    Tile tile = {int(blockIdx.y) * TILE, a.n - int(blockIdx.y) * TILE, 0};
    if (a.tiles) tile = a.tiles[blockIdx.y];
    if (tile.count <= 0) return;
    const bool known = tile.expert < a.experts;
    // Past the ends the last row is loaded; its results are not stored.
    const int row = row_base + lane() < a.rows ? row_base + lane() : a.rows - 1;
    const int at = tile.first + (lane() < tile.count ? lane() : tile.count - 1);
    const int64_t token = (a.tiles ? int(a.order[at]) : at) / a.slots;
    const uint8_t *weights = a.weight + (known ? tile.expert * a.expert_bytes : 0) + row * a.row_bytes;

    float sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = 0;
    const int steps = Dot::steps(a.cols);
    for (int step = part; step < steps; step += PARTS) {
        Dot::left(weights, step, a.cols, a.table, panel.left[lane()]);
        Dot::right(a.input, token, step, a.cols, panel.right[lane()]);
        __syncwarp();
        Way::add(panel, sum);
        __syncwarp();
    }

    __syncthreads();
    float *parts = reinterpret_cast<float *>(shared);
    for (int i = 0; i < SUMS; i++) parts[(part * TILE + Way::token(i)) * TILE + Way::row(i)] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE; i += 32 * PARTS) {
        const int to_row = row_base + i % TILE;
        if (to_row >= a.rows || i / TILE >= tile.count) continue;
        float total = sum_parts(parts + i, TILE * TILE);
        total *= a.scales && known ? a.scales[tile.expert] : a.scale;
        if (a.bias && known) total += a.bias[int64_t(tile.expert) * a.rows + to_row];
        const int64_t to = a.tiles ? a.order[tile.first + i / TILE] : tile.first + i / TILE;
        // An expert that does not exist has no result.
        a.out[to * a.rows + to_row] = known ? total : NOT_A_NUMBER;
    }
}

#define PACKED(name, Type) \
    KERNEL_WIDE(matmul_##name, ProductArgs, 32 * PARTS) { matmul<PackedDot<Type>, ByTensorCores<Type>>(a); }
#define PLAIN(name, Type) \
    KERNEL_WIDE(matmul_##name, ProductArgs, 32 * PARTS) { matmul<FloatDot<Type>, ByLanes<FloatDot<Type>>>(a); }
FOR_TYPES(PACKED, PLAIN)
