// What both ways of attention share (attention.cu): arguments, and softmaxes that are merged.
#pragma once
#include "cache.h"
#include "rounding.h"

struct AttentionArgs {
    Stream k, v;
    const float *q;       // [n, heads, k.dim]
    const float *sinks;   // [heads] or null
    float *out;           // [n, heads, v.dim]
    Activations *rounded; // of `out`, or null; if not, v.dim is whole blocks of 32
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

/// Where a cell of a head is: its position modulo the capacity.
DEVICE const uint8_t *cell_at(const Stream &s, int capacity, int head, int position) {
    return s.cells + (int64_t(head) * capacity + position % capacity) * s.row_bytes;
}

/// A score as the softmax takes it.
DEVICE float softened(const AttentionArgs &a, float dot) {
    float s = dot * a.scale;
    if (a.softcap != 0) s = a.softcap * tanhf(s / a.softcap);
    return s;
}

/// The queries of a head of K and V are numbered row by row, all heads of a row that share it side by side; a block has
/// some of them.
struct Queries {
    int group, head_kv, first, count;   // heads that share one; the block's first query; all queries
    DEVICE Queries(const AttentionArgs &a, int block_queries)
        : group(a.heads / a.heads_kv), head_kv(blockIdx.z), first(blockIdx.y * block_queries), count(a.n * group) {}
    DEVICE int row(int number) const { return number / group; }
    DEVICE int head(int number) const { return head_kv * group + number % group; }
    DEVICE int64_t at(const AttentionArgs &a, int number) const { return int64_t(row(number)) * a.heads + head(number); }
    /// Positions that a query sees, from `low` on before `high`; none if there is no such query.
    DEVICE int high(const AttentionArgs &a, int number) const { return number < count ? a.start + row(number) + 1 : 0; }
    DEVICE int low(const AttentionArgs &a, int high) const { return a.window && high > a.window ? high - a.window : 0; }
};

/// The splits that a block takes, and the tiles of each.
struct Cells {
    int low, end, first_split, end_split;
    DEVICE Cells(const AttentionArgs &a, const Queries &q, int block_queries) {
        const int last = q.first + block_queries < q.count ? q.first + block_queries : q.count;
        end = a.start + q.row(last - 1) + 1;
        low = q.low(a, a.start + q.row(q.first) + 1);
        first_split = a.partial ? a.first_split + int(blockIdx.x) : low / SPLIT;
        end_split = a.partial ? first_split + 1 : (end + SPLIT - 1) / SPLIT;
    }
    DEVICE int first_tile(int split) const { return split * SPLIT > low / TILE * TILE ? split * SPLIT : low / TILE * TILE; }
    DEVICE int end_tile(int split) const { return (split + 1) * SPLIT < end ? (split + 1) * SPLIT : end; }
};

/// Where the values of a query's result go, or those of a block's split and behind them its softmax.
DEVICE float *result_at(const AttentionArgs &a, const Queries &q, int number) {
    const int64_t at = q.at(a, number);
    return a.partial ? a.partial + (at * a.splits + blockIdx.x) * (a.v.dim + 2) : a.out + at * a.v.dim;
}

/// Rounds the results of a block's queries, once they are written and if that is wanted: of splits there are none yet.
DEVICE void round_results(const AttentionArgs &a, const Queries &q, int block_queries) {
    if (!a.rounded || a.partial) return;
    __syncthreads();
    const int blocks = a.v.dim / 32;
    for (int i = threadIdx.x / 32; i < block_queries * blocks; i += WARPS) {
        const int number = q.first + i / blocks;
        if (number >= q.count) break;
        const int64_t block = q.at(a, number) * blocks + i % blocks;
        round_to(a.rounded[block], a.out[block * 32 + lane()]);
    }
}
