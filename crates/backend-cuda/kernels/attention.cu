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
// Values of a head that are in shared memory at once: larger heads are taken in slices.
const int SLICE = 256;

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

/// Values from `skip` on of `count` cells from position `first` on, as f32 in rows of `width` and one more, so that cells
/// lie in different banks. The rest of the tile and of the rows is 0.
DEVICE void load_tile(const Stream &s, int capacity, int head, int first, int count, int skip, int width, float *tile) {
    const int pairs = width / 2;
    for (int i = threadIdx.x; i < TILE * pairs; i += 32 * WARPS) {
        const int cell = i / pairs, pair = i % pairs;
        float x = 0, y = 0;
        if (cell < count && skip + 2 * pair < s.dim) {
            const uint8_t *from = s.cells + (int64_t(head) * capacity + (first + cell) % capacity) * s.row_bytes;
            load_pair(from, s.type, skip / 2 + pair, x, y);
        }
        tile[cell * (width + 1) + 2 * pair] = x;
        tile[cell * (width + 1) + 2 * pair + 1] = y;
    }
}

/// The width of a slice of heads of `dim` values.
DEVICE int slice_width(int dim, int slice) {
    const int left = dim - slice * SLICE;
    return left < SLICE ? left : SLICE;
}

/// What a warp knows of one of its queries: a row and a head. A lane has values lane, lane + 32, ...
template <int VALUES> struct Query {
    int row, head;
    int low, high;   // positions that it sees; none if there is no such query
    float dot[4];    // partial sums of q.k of the tile's cell `lane`
    float share;     // of that cell
    Softmax all, part;
    float all_values[VALUES], part_values[VALUES];

    DEVICE bool sees(int tile) const { return low < tile + TILE && high > tile; }

    DEVICE void begin_scores() { dot[0] = dot[1] = dot[2] = dot[3] = 0; }

    /// q.k of the tile's cell `lane`, over a slice padded with zeros to a multiple of 4.
    DEVICE void add_scores(const float *q, const float *tile, int width, int first) {
        if (!sees(first)) return;
        const float *k = tile + lane() * (width + 1);
        for (int d = 0; d < width; d += 4)
            for (int i = 0; i < 4; i++) dot[i] = fmaf(q[d + i], k[d + i], dot[i]);
    }

    /// Exponentiates the scores of a tile; values so far become relative to the new maximum.
    DEVICE void end_scores(const AttentionArgs &a, int first) {
        if (!sees(first)) return;
        float s = ((dot[0] + dot[1]) + (dot[2] + dot[3])) * a.scale;
        if (a.softcap != 0) s = a.softcap * tanhf(s / a.softcap);
        const bool seen = first + lane() >= low && first + lane() < high;
        const float largest = fmaxf(part.largest, warp_max(seen ? s : MINUS_INFINITY));
        const float factor = expf(part.largest - largest);
        share = seen ? expf(s - largest) : 0.0f;
        part.largest = largest;
        part.sum = part.sum * factor + warp_sum(share);
        for (int i = 0; i < VALUES; i++) part_values[i] *= factor;
    }

    /// Adds the tile's cells to the values of a slice.
    template <int slice> DEVICE void fold_values(const float *tile, int width, int first) {
        const int begin_value = slice * SLICE / 32, end_value = begin_value + 8 < VALUES ? begin_value + 8 : VALUES;
        if (!sees(first)) return;
        const int begin = low > first ? low - first : 0, end = high < first + TILE ? high - first : TILE;
        for (int cell = begin; cell < end; cell++) {
            const float p = __shfl_sync(ALL_LANES, share, cell);
#pragma unroll
            for (int i = begin_value; i < end_value; i++) {
                const int d = lane() + 32 * (i - begin_value);
                if (d < width) part_values[i] = fmaf(p, tile[cell * (width + 1) + d], part_values[i]);
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

/// Adds a slice of V of a tile to all queries of a block.
template <int slice, int QUERIES, int VALUES>
DEVICE void values(const AttentionArgs &a, Query<VALUES> (&query)[QUERIES], int head, int first, int cells, int dim, float *tile) {
    const int width = slice_width(dim, slice);
    __syncthreads();
    load_tile(a.v, a.capacity, head, first, cells, slice * SLICE, width, tile);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < QUERIES; i++) query[i].template fold_values<slice>(tile, width, first);
}

// Blocks: x a split (or all of them), y some queries, z a head of K and V. The queries of a head are numbered row by row,
// all heads of a row that share it side by side; a block has WARPS * QUERIES of them.
template <int QUERIES, int VALUES> DEVICE void attention(const AttentionArgs &a) {
    DYNAMIC_SHARED(float, shared);
    const int dim_k = (a.k.dim + 3) / 4 * 4, dim_v = (a.v.dim + 1) / 2 * 2;
    // Small heads are one slice, and the compiler knows it.
    const int slices_k = VALUES > SLICE / 32 ? (dim_k + SLICE - 1) / SLICE : 1;
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
            for (int slice = 0; slice < slices_k; slice++) {
                const int width = slice_width(dim_k, slice);
                __syncthreads();
                load_tile(a.k, a.capacity, head_kv, first, cells, slice * SLICE, width, tile);
                __syncthreads();
#pragma unroll
                for (int i = 0; i < QUERIES; i++) {
                    if (slice == 0) query[i].begin_scores();
                    query[i].add_scores(queries + (warp_first + i) * dim_k + slice * SLICE, tile, width, first);
                    if (slice == slices_k - 1) query[i].end_scores(a, first);
                }
            }
            values<0>(a, query, head_kv, first, cells, dim_v, tile);
            if (VALUES > SLICE / 32 && dim_v > SLICE) values<1>(a, query, head_kv, first, cells, dim_v, tile);
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
    KERNEL_WIDE(attention_##queries##_##values, AttentionArgs, 32 * WARPS) { attention<queries, values>(a); }
ATTENTION(1, 2)
ATTENTION(4, 2)
ATTENTION(1, 4)
ATTENTION(4, 4)
ATTENTION(1, 8)
ATTENTION(2, 8)
ATTENTION(1, 16)

// Merges splits. Blocks: x a row, y a head; a thread has a value.
KERNEL(merge_splits, AttentionArgs, 512) {
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
