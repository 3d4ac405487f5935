// Attention by lanes, for GPUs before Turing and those of it that have no tensor cores: a lane has a cell of a tile while scores
// are computed, and some of the values while they are summed.
#pragma once
#include "softmax.h"

// Values of a head that are in shared memory at once: larger heads are taken in slices.
const int SLICE = 256;

/// Values from `skip` on of `count` cells from position `first` on, as f32 in rows of `width` and one more, so that cells
/// lie in different banks. The rest of the tile and of the rows is 0.
DEVICE void load_tile(const Stream &s, int capacity, int head, int first, int count, int skip, int width, float *tile) {
    const int pairs = width / 2, AT_ONCE = 8;
    const uint8_t *of_head = s.cells + int64_t(head) * capacity * s.row_bytes;
    const int base = first % capacity;
    // All of some are asked for before the first is used.
    for (int start = threadIdx.x; start < TILE * pairs; start += 32 * WARPS * AT_ONCE) {
        uint32_t piece[AT_ONCE][4];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const int i = start + 32 * WARPS * k, cell = i / pairs, pair = i % pairs;
            for (int p = 0; p < 4; p++) piece[k][p] = 0;
            if (cell >= count || skip + 2 * pair >= s.dim) continue;
            const Pieces pieces(s.type, skip / 2 + pair);
            const uint8_t *from = of_head + (base + cell) % capacity * s.row_bytes;
            for (int p = 0; p < 2; p++) piece[k][p] = load16(from + pieces.at[p]);
            if (pieces.four)
                for (int p = 2; p < 4; p++) piece[k][p] = load16(from + pieces.at[p]);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const int i = start + 32 * WARPS * k, cell = i / pairs, pair = i % pairs;
            if (i >= TILE * pairs) break;
            float x, y;
            decode_pair(s.type, {piece[k][0] | piece[k][1] << 16, piece[k][2] | piece[k][3] << 16}, skip / 2 + pair, x, y);
            tile[cell * (width + 1) + 2 * pair] = x;
            tile[cell * (width + 1) + 2 * pair + 1] = y;
        }
    }
}

/// The width of a slice of heads of `dim` values.
DEVICE int slice_width(int dim, int slice) {
    const int left = dim - slice * SLICE;
    return left < SLICE ? left : SLICE;
}

/// What a warp knows of one of its queries: a row and a head. A lane has values lane, lane + 32, ...
template <int VALUES> struct Query {
    int number;
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
        const float s = softened(a, (dot[0] + dot[1]) + (dot[2] + dot[3]));
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

// Blocks: x a split (or all of them), y WARPS * QUERIES queries, z a head of K and V.
template <int QUERIES, int VALUES> DEVICE void attention(const AttentionArgs &a) {
    DYNAMIC_SHARED(float, shared);
    const int dim_k = (a.k.dim + 3) / 4 * 4, dim_v = (a.v.dim + 1) / 2 * 2;
    // Small heads are one slice, and the compiler knows it.
    const int slices_k = VALUES > SLICE / 32 ? (dim_k + SLICE - 1) / SLICE : 1;
    float *queries = shared, *tile = shared + WARPS * QUERIES * dim_k;
    const Queries q(a, WARPS * QUERIES);
    const int warp_first = threadIdx.x / 32 * QUERIES;

    for (int i = threadIdx.x; i < WARPS * QUERIES * dim_k; i += 32 * WARPS) {
        const int number = q.first + i / dim_k, d = i % dim_k;
        queries[i] = number < q.count && d < a.k.dim ? a.q[q.at(a, number) * a.k.dim + d] : 0.0f;
    }
    // In registers: every loop over it is unrolled.
    Query<VALUES> query[QUERIES];
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        Query<VALUES> &me = query[i];
        me.number = q.first + warp_first + i;
        me.high = q.high(a, me.number);
        me.low = q.low(a, me.high);
        me.share = 0;
        me.all = begin(me.number < q.count ? a.sinks : 0, q.head(me.number));
        me.begin_split();
        for (int k = 0; k < VALUES; k++) me.all_values[k] = 0;
    }

    const Cells c(a, q, WARPS * QUERIES);
    for (int split = c.first_split; split < c.end_split; split++) {
        const int tile_end = c.end_tile(split);
        for (int first = c.first_tile(split); first < tile_end; first += TILE) {
            const int cells = tile_end - first < TILE ? tile_end - first : TILE;
            for (int slice = 0; slice < slices_k; slice++) {
                const int width = slice_width(dim_k, slice);
                __syncthreads();
                load_tile(a.k, a.capacity, q.head_kv, first, cells, slice * SLICE, width, tile);
                __syncthreads();
#pragma unroll
                for (int i = 0; i < QUERIES; i++) {
                    if (slice == 0) query[i].begin_scores();
                    query[i].add_scores(queries + (warp_first + i) * dim_k + slice * SLICE, tile, width, first);
                    if (slice == slices_k - 1) query[i].end_scores(a, first);
                }
            }
            values<0>(a, query, q.head_kv, first, cells, dim_v, tile);
            if (VALUES > SLICE / 32 && dim_v > SLICE) values<1>(a, query, q.head_kv, first, cells, dim_v, tile);
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
        float *to = result_at(a, q, me.number);
        for (int k = 0; k < VALUES; k++) {
            const int d = lane() + 32 * k;
            if (d < a.v.dim) to[d] = a.partial ? me.part_values[k] : me.all_values[k] / me.all.sum;
        }
        if (a.partial && lane() == 0) {
            to[a.v.dim] = me.part.largest;
            to[a.v.dim + 1] = me.part.sum;
        }
    }
    round_results(a, q, WARPS * QUERIES);
}
