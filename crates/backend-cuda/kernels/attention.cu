// Attention by online softmax over tiles of cells (Dao et al. 2022, arXiv 2205.14135).
//
// Cells are cut into splits of SPLIT at multiples of SPLIT, each of which has a softmax of its own; splits are merged in
// order. A block takes all splits one after the other (prompts), or one split each, merged by a second kernel (generation,
// where there are too few queries to keep a GPU busy). Both do the same arithmetic, so a row's result depends neither on
// the choice nor on the rows beside it.
#include "cache.h"

struct AttentionArgs {
    Stream k, v;
    const float *q;       // [n, heads, k.dim]
    const float *sinks;   // [heads] or null
    float *out;           // [n, heads, v.dim]
    float *partial;       // [n, heads, splits, v.dim + 2] or null: all splits in one block
    int32_t n, start, heads, heads_kv, capacity, window;
    int32_t first_split, splits;
    float scale, softcap;
};

const int TILE = 32, SPLIT = 256, WARPS = 4;

/// A softmax so far: the largest score, the sum of exponentials relative to it.
struct Softmax {
    float largest, sum;
};

/// What comes before the first split: nothing, or a sink, which is a score without a value.
DEVICE Softmax begin(const float *sinks, int head) {
    Softmax s = {MINUS_INFINITY, 0};
    if (sinks) {
        s.largest = sinks[head];
        s.sum = 1;
    }
    return s;
}

/// Adds split `part` to `all`; gives the factors for the values of both.
DEVICE void merge(Softmax &all, const Softmax &part, float &factor_all, float &factor_part) {
    const float largest = fmaxf(all.largest, part.largest);
    factor_all = expf(all.largest - largest);
    factor_part = expf(part.largest - largest);
    all.sum = fmaf(part.sum, factor_part, all.sum * factor_all);
    all.largest = largest;
}

/// `count` cells from position `first` on, as f32 in rows of `stride`; the rest of the tile and of the rows is 0.
DEVICE void load_tile(const Stream &s, int capacity, int head, int first, int count, float *tile, int stride) {
    const int pairs = (stride - 1) / 2;
    for (int i = threadIdx.x; i < TILE * pairs; i += 32 * WARPS) {
        const int cell = i / pairs, pair = i % pairs;
        float x = 0, y = 0;
        if (cell < count && 2 * pair < s.dim)
            load_pair(s.cells + (int64_t(head) * capacity + (first + cell) % capacity) * s.row_bytes, s.type, pair, x, y);
        tile[cell * stride + 2 * pair] = x;
        tile[cell * stride + 2 * pair + 1] = y;
    }
}

/// q.k over rows padded with zeros to a multiple of 4.
DEVICE float score(const float *q, const float *k, int dim) {
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (int d = 0; d < dim; d += 4) {
        s0 = fmaf(q[d], k[d], s0);
        s1 = fmaf(q[d + 1], k[d + 1], s1);
        s2 = fmaf(q[d + 2], k[d + 2], s2);
        s3 = fmaf(q[d + 3], k[d + 3], s3);
    }
    return (s0 + s1) + (s2 + s3);
}

/// What a warp knows of one of its queries: a row and a head. A lane has values lane, lane + 32, ...
template <int VALUES> struct Query {
    int row, head;
    int low, high;   // positions that it sees; none if there is no such query
    float share;     // of the tile's cell `lane`
    Softmax all, part;
    float all_values[VALUES], part_values[VALUES];

    DEVICE bool sees(int tile) const { return low < tile + TILE && high > tile; }

    /// Scores of a tile, exponentiated; values so far become relative to the new maximum.
    DEVICE void fold_scores(const AttentionArgs &a, const float *q, const float *tile, int stride, int first) {
        if (!sees(first)) return;
        float s = score(q, tile + lane() * stride, stride - 1) * a.scale;
        if (a.softcap != 0) s = a.softcap * tanhf(s / a.softcap);
        const bool seen = first + lane() >= low && first + lane() < high;
        const float largest = fmaxf(part.largest, warp_max(seen ? s : MINUS_INFINITY));
        const float factor = expf(part.largest - largest);
        share = seen ? expf(s - largest) : 0.0f;
        part.largest = largest;
        part.sum = part.sum * factor + warp_sum(share);
        for (int i = 0; i < VALUES; i++) part_values[i] *= factor;
    }

    DEVICE void fold_values(const float *tile, int stride, int first, int dim) {
        if (!sees(first)) return;
        const int begin = low > first ? low - first : 0, end = high < first + TILE ? high - first : TILE;
        for (int cell = begin; cell < end; cell++) {
            const float p = __shfl_sync(ALL_LANES, share, cell);
            for (int i = 0; i < VALUES; i++) {
                const int d = lane() + 32 * i;
                if (d < dim) part_values[i] = fmaf(p, tile[cell * stride + d], part_values[i]);
            }
        }
    }

    DEVICE void begin_split() {
        part.largest = MINUS_INFINITY;
        part.sum = 0;
        for (int i = 0; i < VALUES; i++) part_values[i] = 0;
    }

    DEVICE void end_split() {
        if (part.sum == 0) return;
        float factor_all, factor_part;
        merge(all, part, factor_all, factor_part);
        for (int i = 0; i < VALUES; i++)
            all_values[i] = fmaf(part_values[i], factor_part, all_values[i] * factor_all);
    }
};

// Blocks: x a split (or all of them), y some queries, z a head of K and V. The queries of a head are numbered row by row,
// all heads of a row that share it side by side; a block has WARPS * QUERIES of them.
template <int QUERIES, int VALUES> DEVICE void attention(const AttentionArgs &a) {
    DYNAMIC_SHARED(float, shared);
    const int dim_k = (a.k.dim + 3) / 4 * 4, dim_v = (a.v.dim + 1) / 2 * 2;
    const int stride_k = dim_k + 1, stride_v = dim_v + 1;
    float *queries = shared, *tile = shared + WARPS * QUERIES * dim_k;
    const int group = a.heads / a.heads_kv, head_kv = blockIdx.z, count = a.n * group;
    const int block_first = blockIdx.y * WARPS * QUERIES, warp_first = threadIdx.x / 32 * QUERIES;

    for (int i = threadIdx.x; i < WARPS * QUERIES * dim_k; i += 32 * WARPS) {
        const int query = block_first + i / dim_k, d = i % dim_k;
        const int64_t at = int64_t(query / group) * a.heads + head_kv * group + query % group;
        queries[i] = query < count && d < a.k.dim ? a.q[at * a.k.dim + d] : 0.0f;
    }
    // In registers: every loop over it is unrolled.
    Query<VALUES> query[QUERIES];
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        Query<VALUES> &me = query[i];
        const int number = block_first + warp_first + i;
        me.row = number / group;
        me.head = head_kv * group + number % group;
        me.high = number < count ? a.start + me.row + 1 : 0;
        me.low = a.window && me.high > a.window ? me.high - a.window : 0;
        me.share = 0;
        me.all = begin(number < count ? a.sinks : 0, me.head);
        me.begin_split();
        for (int k = 0; k < VALUES; k++) me.all_values[k] = 0;
    }

    const int last_query = block_first + WARPS * QUERIES < count ? block_first + WARPS * QUERIES : count;
    const int end = a.start + (last_query - 1) / group + 1, first_high = a.start + block_first / group + 1;
    const int low = a.window && first_high > a.window ? first_high - a.window : 0;
    const int split_first = a.partial ? a.first_split + int(blockIdx.x) : low / SPLIT;
    const int split_end = a.partial ? split_first + 1 : (end + SPLIT - 1) / SPLIT;
    for (int split = split_first; split < split_end; split++) {
        const int tile_first = split * SPLIT > low / TILE * TILE ? split * SPLIT : low / TILE * TILE;
        const int tile_end = (split + 1) * SPLIT < end ? (split + 1) * SPLIT : end;
        for (int first = tile_first; first < tile_end; first += TILE) {
            const int cells = tile_end - first < TILE ? tile_end - first : TILE;
            __syncthreads();
            load_tile(a.k, a.capacity, head_kv, first, cells, tile, stride_k);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < QUERIES; i++)
                query[i].fold_scores(a, queries + (warp_first + i) * dim_k, tile, stride_k, first);
            __syncthreads();
            load_tile(a.v, a.capacity, head_kv, first, cells, tile, stride_v);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < QUERIES; i++) query[i].fold_values(tile, stride_v, first, a.v.dim);
        }
        if (a.partial) break;
#pragma unroll
        for (int i = 0; i < QUERIES; i++) {
            query[i].end_split();
            query[i].begin_split();
        }
    }

#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        const Query<VALUES> &me = query[i];
        if (me.high == 0) continue;
        const int64_t at = int64_t(me.row) * a.heads + me.head;
        float *to = a.partial ? a.partial + (at * a.splits + blockIdx.x) * (a.v.dim + 2) : a.out + at * a.v.dim;
        for (int k = 0; k < VALUES; k++) {
            const int d = lane() + 32 * k;
            if (d < a.v.dim) to[d] = a.partial ? me.part_values[k] : me.all_values[k] / me.all.sum;
        }
        if (a.partial && lane() == 0) {
            to[a.v.dim] = me.part.largest;
            to[a.v.dim + 1] = me.part.sum;
        }
    }
}

#define ATTENTION(queries, values) \
    KERNEL(attention_##queries##_##values, AttentionArgs, 32 * WARPS) { attention<queries, values>(a); }
ATTENTION(1, 2)
ATTENTION(4, 2)
ATTENTION(1, 4)
ATTENTION(4, 4)
ATTENTION(1, 8)
ATTENTION(2, 8)

// Merges splits. Blocks: x a row, y a head; a thread has a value.
KERNEL(merge_splits, AttentionArgs, 256) {
    const int d = threadIdx.x;
    if (d >= a.v.dim) return;
    const int64_t at = int64_t(blockIdx.x) * a.heads + blockIdx.y;
    const float *part = a.partial + at * a.splits * (a.v.dim + 2);
    Softmax all = begin(a.sinks, blockIdx.y);
    float value = 0;
    for (int split = 0; split < a.splits; split++, part += a.v.dim + 2) {
        const Softmax softmax = {part[a.v.dim], part[a.v.dim + 1]};
        if (softmax.sum == 0) continue;
        float factor_all, factor_part;
        merge(all, softmax, factor_all, factor_part);
        value = fmaf(part[d], factor_part, value * factor_all);
    }
    a.out[at * a.v.dim + d] = value / all.sum;
}
