// Products of many rows of activations (prompts). A block computes a tile of SIDE x SIDE results. Its eight warps share the
// steps of the rows between them, one partial sum each, so that results have the bits of matvec.cu. Packed weights meet
// activations on tensor cores, where there are any: products are exact integers, so that bits are the same there too. So do
// weights of 16 bits (halves.h; those of bf16 on later ones only), which matvec.cu multiplies in the same way.
//
// Tiles of 64 x 64 read half of the bytes for each product that tiles of 32 x 32 do, but there are a quarter of them: small
// matrices keep more multiprocessors busy in small tiles, and lanes (ByLanes) have no registers for large ones.
//
// With experts, a tile's rows of activations are those that one expert meets (groups.cu).
#include "product.h"

// How a warp computes a step of a tile: what it shares for it, which results a lane has, and how they grow. Result i of a lane
// is of row `row(i)` and of token `tokens(i) + token(i)`, of which the first is the same in all lanes.

/// Every lane multiplies rows of weights with rows of activations: LEFT lanes side by side have all rows of the tile.
template <class D, int SIDE> struct ByLanes {
    typedef D Dot;
    static const bool ACTIVATIONS_AHEAD = true;
    static const int LEFT = 8, RIGHT = 4, ROWS = SIDE / LEFT, TOKENS = SIDE / RIGHT, SUMS = ROWS * TOKENS;
    struct Panel {
        typename Dot::Left left[SIDE];
        typename Dot::Right right[SIDE];
        DEVICE void put_left(int i, const typename Dot::Left &w) { left[i] = w; }
        DEVICE void put_right(int i, const typename Dot::Right &x) { right[i] = x; }
    };
    static DEVICE int row(int i) { return lane() % LEFT + LEFT * (i % ROWS); }
    static DEVICE int tokens(int i) { return RIGHT * (i / ROWS); }
    static DEVICE int token(int) { return lane() / LEFT; }
    static DEVICE void add(const Panel &panel, float (&sum)[SUMS]) {
        typename Dot::Left w[ROWS];
        for (int r = 0; r < ROWS; r++) w[r] = panel.left[row(r)];
        for (int t = 0; t < TOKENS; t++) {
            const typename Dot::Right x = panel.right[tokens(ROWS * t) + token(0)];
            for (int r = 0; r < ROWS; r++) sum[ROWS * t + r] = Dot::add(w[r], x, sum[ROWS * t + r]);
        }
    }
};

#if __CUDA_ARCH__ >= 750
/// Products of 16 x 8, M times N of them: what a lane has of them.
template <int SIDE> struct Tiled {
    static const int M = SIDE / 16, N = SIDE / 8, SUMS = 4 * M * N;
    static DEVICE int row(int i) { return 16 * (i / (4 * N)) + lane() / 4 + i % 4 / 2 * 8; }
    static DEVICE int tokens(int i) { return i / 4 % N * 8; }
    static DEVICE int token(int i) { return lane() % 4 * 2 + i % 2; }
};

/// Whether activations of the next step have registers beside its weights: not where these have more scales, or take more to unpack.
template <class Type> struct Ahead {
    static const bool ACTIVATIONS = !Type::HALVES;
};
template <> struct Ahead<TQ1_0> {
    static const bool ACTIVATIONS = false;
};

template <class Type, int SIDE> struct ByTensorCores : Tiled<SIDE> {
    typedef PackedDot<Type> Dot;
    typedef Tiled<SIDE> T;
    static const int AT_ONCE = 2;
    static const bool ACTIVATIONS_AHEAD = Ahead<Type>::ACTIVATIONS;
    struct Panel {
        // Words k and k + 4 of a row lie side by side: lane 4g + k takes both.
        alignas(16) uint2 left[SIDE][4];
        alignas(16) uint2 right[SIDE][4];
        Scales scales[SIDE];
        Rounding rounding[SIDE];
        static DEVICE void spread(uint2 (&to)[4], const int (&q)[8]) {
            for (int k = 0; k < 4; k++) to[k].x = uint32_t(q[k]), to[k].y = uint32_t(q[k + 4]);
        }
        DEVICE void put_left(int i, const Chunk &w) {
            spread(left[i], w.q);
            scales[i] = w;
        }
        DEVICE void put_right(int i, const Activations &x) {
            spread(right[i], x.q);
            rounding[i] = x;
        }
    };
    static DEVICE void add(const Panel &panel, float (&sum)[T::SUMS]) {
        // So many rows at a time that registers are left beside the sums.
#pragma unroll
        for (int first_m = 0; first_m < T::M; first_m += AT_ONCE) add_rows(panel, first_m, sum);
    }
    static DEVICE void add_rows(const Panel &panel, int first_m, float (&sum)[T::SUMS]) {
        const int own = opaque(lane()), group = own / 4, k = own % 4;
        int a[AT_ONCE][4];
        Scales scales[2 * AT_ONCE];
#pragma unroll
        for (int m = 0; m < AT_ONCE; m++) {
            const int row = 16 * (first_m + m) + group;
            const uint2 upper = panel.left[row][k], lower = panel.left[row + 8][k];
            a[m][0] = int(upper.x), a[m][1] = int(lower.x), a[m][2] = int(upper.y), a[m][3] = int(lower.y);
            scales[2 * m] = panel.scales[row], scales[2 * m + 1] = panel.scales[row + 8];
        }
#pragma unroll
        for (int n = 0; n < T::N; n++) {
            const uint2 right = panel.right[8 * n + group][k];
            const int b[2] = {int(right.x), int(right.y)};
            const Rounding rounding[2] = {panel.rounding[8 * n + 2 * k], panel.rounding[8 * n + 2 * k + 1]};
#pragma unroll
            for (int m = 0; m < AT_ONCE; m++) {
                int first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
                if (Type::HALVES) {
                    mma16(first, a[m][0], a[m][1], b[0]);
                    mma16(second, a[m][2], a[m][3], b[1]);
                } else {
                    mma32(first, a[m], b);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float &s = sum[4 * (T::N * (first_m + m) + n) + i];
                    s = Dot::scaled(scales[2 * m + i / 2], rounding[i % 2], first[i], second[i], s);
                }
            }
        }
    }
};
#endif

/// What a block computes.
template <int SIDE> struct Place {
    Tile tile;
    int row_base;
    bool known;               // whether the expert exists
    const uint8_t *weights;   // of the expert
    DEVICE Place(const ProductArgs &a) : tile{int(blockIdx.y) * SIDE, a.n - int(blockIdx.y) * SIDE, 0}, row_base(blockIdx.x * SIDE) {
        if (a.tiles) tile = a.tiles[blockIdx.y];
        known = tile.expert < a.experts;
        weights = a.weight + (known ? tile.expert * a.expert_bytes : 0);
    }
    // Past the ends the last row is loaded; its results are not stored.
    DEVICE int row(const ProductArgs &a, int i) const { return row_base + i < a.rows ? row_base + i : a.rows - 1; }
    DEVICE int token(const ProductArgs &a, int i) const {
        const int at = tile.first + (i < tile.count ? i : tile.count - 1);
        return (a.tiles ? int(a.order[at]) : at) / a.slots;
    }
};

/// Adds the partial sums of a block's warps, of which `Way` says what each is of: those of some tokens, then of the next.
template <class Way, int SIDE>
DEVICE void store(const ProductArgs &a, const Place<SIDE> &place, const float (&sum)[Way::SUMS], float *parts) {
    // A row is longer than it has values, so that lanes with different tokens do not meet in a bank.
    const int TOKENS = 16, ROW = SIDE + 4;
    const Tile &tile = place.tile;
#pragma unroll
    for (int first = 0; first < SIDE; first += TOKENS) {
        // The tokens before have been read.
        if (first > 0) __syncthreads();
#pragma unroll
        for (int i = 0; i < Way::SUMS; i++) {
            if (Way::tokens(i) / TOKENS != first / TOKENS) continue;
            const int token = Way::tokens(i) - first + Way::token(i);
            parts[(threadIdx.x / 32 * TOKENS + token) * ROW + Way::row(i)] = sum[i];
        }
        __syncthreads();
#pragma unroll
        for (int round = 0; round < TOKENS * SIDE / (32 * PARTS); round++) {
            const int i = threadIdx.x + 32 * PARTS * round, token = first + i / SIDE, to_row = place.row_base + i % SIDE;
            if (to_row >= a.rows || token >= tile.count) continue;
            float total = sum_parts(parts + i / SIDE * ROW + i % SIDE, TOKENS * ROW);
            total *= a.scales && place.known ? a.scales[tile.expert] : a.scale;
            if (a.bias && place.known) total += a.bias[int64_t(tile.expert) * a.rows + to_row];
            const int64_t to = a.tiles ? a.order[tile.first + token] : tile.first + token;
            // An expert that does not exist has no result.
            a.out[to * a.rows + to_row] = place.known ? total : NOT_A_NUMBER;
        }
    }
}

template <class Way, int SIDE> DEVICE void matmul(const ProductArgs &a) {
    typedef typename Way::Dot Dot;
    // First one panel for each warp, then partial sums.
    DYNAMIC_SHARED(char, shared);
    typename Way::Panel &panel = reinterpret_cast<typename Way::Panel *>(shared)[threadIdx.x / 32];
    const Place<SIDE> place(a);
    if (place.tile.count <= 0) return;
    // Rows of either kind that a lane loads.
    const int EACH = SIDE / 32;
    const uint8_t *weights[EACH];
    int tokens[EACH];
    typename Dot::Left w[EACH];
    typename Dot::Right x[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        weights[i] = place.weights + place.row(a, lane() + 32 * i) * a.row_bytes;
        tokens[i] = place.token(a, lane() + 32 * i);
    }
    const int steps = Dot::steps(a.cols);
    const auto activations = [&](int step) {
#pragma unroll
        for (int i = 0; i < EACH; i++) Dot::right(a.input, tokens[i], step, a.cols, x[i]);
    };
    // Past the end it is the last step, which nobody uses.
    const auto fetch = [&](int step) {
        step = step < steps ? step : steps - 1;
#pragma unroll
        for (int i = 0; i < EACH; i++) Dot::left(weights[i], step, a.cols, a.table, w[i]);
        if (Way::ACTIVATIONS_AHEAD) activations(step);
    };

    float sum[Way::SUMS];
    for (int i = 0; i < Way::SUMS; i++) sum[i] = 0;
    fetch(threadIdx.x / 32);
    for (int step = threadIdx.x / 32; step < steps; step += PARTS) {
        if (!Way::ACTIVATIONS_AHEAD) activations(step);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            panel.put_left(lane() + 32 * i, w[i]);
            panel.put_right(lane() + 32 * i, x[i]);
        }
        __syncwarp();
        // What is loaded now arrives while this step is multiplied.
        fetch(step + PARTS);
        Way::add(panel, sum);
        __syncwarp();
    }
    __syncthreads();
    store<Way, SIDE>(a, place, sum, reinterpret_cast<float *>(shared));
}

// With tensor cores, two small tiles fit a multiprocessor, or a large one.
#define SMALL(name) KERNEL_BLOCKS(matmul_##name##_32, ProductArgs, 32 * PARTS, __CUDA_ARCH__ >= 750 ? 2 : 1)
#define LARGE(name) KERNEL_BLOCKS(matmul_##name##_64, ProductArgs, 32 * PARTS, 1)

#if __CUDA_ARCH__ >= 750
/// Weights of 16 bits: lanes load what their products need.
template <class Type, int SIDE> DEVICE void matmul_halves(const ProductArgs &a, bool wide) {
    typedef Tiled<SIDE> Way;
    DYNAMIC_SHARED(float, parts);
    const Place<SIDE> place(a);
    if (place.tile.count <= 0) return;
    const HalfRows from = {place.weights, a.row_bytes, static_cast<const float *>(a.input), a.cols};
    int rows[2 * Way::M], inputs[Way::N];
    for (int i = 0; i < SIDE / 8; i++) {
        rows[i] = place.row(a, 8 * i + lane() / 4);
        inputs[i] = place.token(a, 8 * i + lane() / 4);
    }
    float sum[Way::SUMS];
    for (int i = 0; i < Way::SUMS; i++) sum[i] = 0;
    const int steps = half_steps(a.cols);
    for (int step = threadIdx.x / 32; step < steps; step += PARTS)
        add_halves<Type, Way::M, Way::N>(from, rows, inputs, wide, step, sum);
    store<Way, SIDE>(a, place, sum, parts);
}
#define HALF(name, Type)                                           \
    SMALL(name) { matmul_halves<Type, 32>(a, wide_rows(a)); }      \
    LARGE(name) { matmul_halves<Type, 64>(a, true); }
#define PACKED(name, Type)                                         \
    SMALL(name) { matmul<ByTensorCores<Type, 32>, 32>(a); }        \
    LARGE(name) { matmul<ByTensorCores<Type, 64>, 64>(a); }
#else
#define HALF PLAIN
#define PACKED(name, Type) SMALL(name) { matmul<ByLanes<PackedDot<Type>, 32>, 32>(a); }
#endif
#if __CUDA_ARCH__ >= 800
#define BFLOAT HALF
#else
#define BFLOAT PLAIN
#endif
#define PLAIN(name, Type) SMALL(name) { matmul<ByLanes<FloatDot<Type>, 32>, 32>(a); }
FOR_TYPES(PACKED, HALF, BFLOAT, PLAIN)
