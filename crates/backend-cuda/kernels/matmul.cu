// Products of many rows of activations (prompts). A block computes a tile of TILE x TILE results. Its eight warps share the
// steps of the rows between them, one partial sum each, so that results have the bits of matvec.cu. Packed weights meet
// activations on tensor cores, where there are any: products are exact integers, so that bits are the same there too. So do
// weights of 16 bits (halves.h), which matvec.cu multiplies in the same way.
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
/// Two times four products of 16 x 8: what a lane has of them.
struct Tiled {
    static DEVICE int row(int i) { return 16 * (i / 16) + lane() / 4 + i % 4 / 2 * 8; }
    static DEVICE int token(int i) { return i % 16 / 4 * 8 + lane() % 4 * 2 + i % 2; }
};

template <class Type> struct ByTensorCores : Tiled {
    typedef PackedDot<Type> Dot;
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

/// What a block computes.
struct Place {
    Tile tile;
    int row_base;
    bool known;               // whether the expert exists
    const uint8_t *weights;   // of the expert
    DEVICE Place(const ProductArgs &a) : tile{int(blockIdx.y) * TILE, a.n - int(blockIdx.y) * TILE, 0}, row_base(blockIdx.x * TILE) {
        if (a.tiles) tile = a.tiles[blockIdx.y];
        known = tile.expert < a.experts;
        weights = a.weight + (known ? tile.expert * a.expert_bytes : 0);
    }
    // Past the ends the last row is loaded; its results are not stored.
    DEVICE const uint8_t *row(const ProductArgs &a, int i) const {
        return weights + (row_base + i < a.rows ? row_base + i : a.rows - 1) * a.row_bytes;
    }
    DEVICE int64_t token(const ProductArgs &a, int i) const {
        const int at = tile.first + (i < tile.count ? i : tile.count - 1);
        return (a.tiles ? int(a.order[at]) : at) / a.slots;
    }
};

/// Adds the partial sums of a block's warps, of which `Way` says what each is of.
template <class Way> DEVICE void store(const ProductArgs &a, const Place &place, const float (&sum)[SUMS], float *parts) {
    const Tile &tile = place.tile;
    for (int i = 0; i < SUMS; i++) parts[(threadIdx.x / 32 * TILE + Way::token(i)) * TILE + Way::row(i)] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE; i += 32 * PARTS) {
        const int to_row = place.row_base + i % TILE;
        if (to_row >= a.rows || i / TILE >= tile.count) continue;
        float total = sum_parts(parts + i, TILE * TILE);
        total *= a.scales && place.known ? a.scales[tile.expert] : a.scale;
        if (a.bias && place.known) total += a.bias[int64_t(tile.expert) * a.rows + to_row];
        const int64_t to = a.tiles ? a.order[tile.first + i / TILE] : tile.first + i / TILE;
        // An expert that does not exist has no result.
        a.out[to * a.rows + to_row] = place.known ? total : NOT_A_NUMBER;
    }
}

template <class Dot, class Way> DEVICE void matmul(const ProductArgs &a) {
    // First one panel for each warp, then the partial sums [PARTS][TILE][TILE].
    DYNAMIC_SHARED(char, shared);
    Panel<Dot> &panel = reinterpret_cast<Panel<Dot> *>(shared)[threadIdx.x / 32];
    const Place place(a);
    if (place.tile.count <= 0) return;
    const uint8_t *weights = place.row(a, lane());
    const int64_t token = place.token(a, lane());

    float sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = 0;
    const int steps = Dot::steps(a.cols);
    for (int step = threadIdx.x / 32; step < steps; step += PARTS) {
        Dot::left(weights, step, a.cols, a.table, panel.left[lane()]);
        Dot::right(a.input, token, step, a.cols, panel.right[lane()]);
        __syncwarp();
        Way::add(panel, sum);
        __syncwarp();
    }
    __syncthreads();
    store<Way>(a, place, sum, reinterpret_cast<float *>(shared));
}

#if __CUDA_ARCH__ >= 800
/// Weights of 16 bits: lanes load what their products need.
template <class Type> DEVICE void matmul_halves(const ProductArgs &a) {
    DYNAMIC_SHARED(float, parts);
    const Place place(a);
    if (place.tile.count <= 0) return;
    const uint8_t *weights[4];
    const float *inputs[4];
    for (int i = 0; i < 4; i++) {
        weights[i] = place.row(a, 8 * i + lane() / 4);
        inputs[i] = static_cast<const float *>(a.input) + place.token(a, 8 * i + lane() / 4) * a.cols;
    }
    float sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = 0;
    const bool wide = wide_rows(a);
    const int steps = half_steps(a.cols);
    for (int step = threadIdx.x / 32; step < steps; step += PARTS)
        add_halves<Type, 2, 4>(weights, inputs, wide, step, a.cols, sum);
    store<Tiled>(a, place, sum, parts);
}
#define HALF(name, Type) \
    KERNEL_WIDE(matmul_##name, ProductArgs, 32 * PARTS) { matmul_halves<Type>(a); }
#else
#define HALF PLAIN
#endif

#define PACKED(name, Type) \
    KERNEL_WIDE(matmul_##name, ProductArgs, 32 * PARTS) { matmul<PackedDot<Type>, ByTensorCores<Type>>(a); }
#define PLAIN(name, Type) \
    KERNEL_WIDE(matmul_##name, ProductArgs, 32 * PARTS) { matmul<FloatDot<Type>, ByLanes<FloatDot<Type>>>(a); }
FOR_TYPES(PACKED, HALF, PLAIN)
