// Attention on tensor cores: queries, keys, shares and values meet as sums of two f16 (halves.h), those of an f16 cache as
// they are; the others are scaled, every cell for itself: a row's result depends on no cell that it does not see. Each small
// product starts from 0 and is added in f32, so that how tensor cores round matters little.
//
// A block has `tiles` times 16 queries of a head of K and V; WARPS / tiles warps share 16 of them: they divide the cells of
// a tile among themselves while scores are computed, and the values of a head after that. In products, a lane 4g + k has
// rows g and g + 8 and columns 2k and 2k + 1 of a result (`mma_f16`).
#pragma once
#include "halves.h"
#include "softmax.h"

// Values of a head that are in shared memory at once.
const int SLICE = 64;
// Shares are at most 1; scaled by this, those down to 2^-29 keep all bits of two halves.
const float SHARE_UP = 32768;

/// Shared memory of a block. Words are two halves: of Q and K two values of a query or a cell, of V two cells of a column.
struct Parts {
    uint32_t *q_high, *q_low;   // [queries][words]
    uint32_t *high, *low;       // of a slice of a tile: K as [cell][32], V as [column][16]
    float *scores;              // [queries][TILE]
    float *down, *down_k, *down_v;   // of each query, cell of K and of V: the inverse of what it was scaled by
    uint32_t *odd;                   // of each warp: cells of V among which it has met what is no number
    int words;
    DEVICE Parts(void *shared, int queries, int dim_k) {
        // Four words more, so that eight rows lie in different banks.
        words = (dim_k + 15) / 16 * 8 + 4;
        // What has a fixed size comes first.
        high = static_cast<uint32_t *>(shared);
        low = high + TILE * SLICE / 2;
        scores = reinterpret_cast<float *>(low + TILE * SLICE / 2);
        down = scores + queries * TILE;
        down_k = down + queries;
        down_v = down_k + TILE;
        odd = reinterpret_cast<uint32_t *>(down_v + TILE);
        q_high = odd + WARPS;
        q_low = q_high + queries * words;
    }
    // Places, shuffled so that what the lanes of a warp read lies in different banks.
    static DEVICE int key(int cell, int word) { return cell * (SLICE / 2) + (word ^ cell % 8 * 4); }
    static DEVICE int value(int column, int word) { return column * (TILE / 2) + (word ^ column / 2 % 4 * 4 ^ column / 8 % 4); }
    static DEVICE int score(int query, int cell) { return query * TILE + (cell ^ query % 4 * 8); }
};

DEVICE uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
DEVICE uint32_t magnitude(float x) { return float_to_bits(x) & 0x7fffffff; }
/// Neither infinity nor NaN.
DEVICE bool number(float x) { return magnitude(x) < 0x7f800000; }

/// A block's queries, a warp for each, as halves; zeros where there are none.
DEVICE void load_queries(const AttentionArgs &a, const Queries &q, int queries, const Parts &s) {
    for (int row = threadIdx.x / 32; row < queries; row += WARPS) {
        const int number = q.first + row, dim = number < q.count ? a.k.dim : 0;
        const float *from = a.q + q.at(a, number < q.count ? number : q.first) * a.k.dim;
        uint32_t largest = 0;
        for (int d = lane(); d < dim; d += 32) largest = larger(largest, magnitude(from[d]));
        const Unit u = unit(warp_max_bits(largest));
        for (int word = lane(); word < s.words - 4; word += 32) {
            const float x = 2 * word < dim ? from[2 * word] * u.up : 0, y = 2 * word < dim ? from[2 * word + 1] * u.up : 0;
            halve(x, y, s.q_high[row * s.words + word], s.q_low[row * s.words + word]);
        }
        if (lane() == 0) s.down[row] = u.down;
    }
}

/// What a warp puts into a slice next: a lane has two values of CELLS cells, on their way from memory. They stay in the pieces
/// in which they come (of f16 it is a whole word), because whatever is done with them waits for them.
template <int CELLS> struct Fetched {
    uint32_t piece[CELLS][4];
    DEVICE Raw raw(int j) const { return {piece[j][0] | piece[j][1] << 16, piece[j][2] | piece[j][3] << 16}; }
};

/// Which slice that is: of V or of K, of cells from position `first` on, of which `count` are left.
struct Next {
    bool values;
    int first, count, slice;
    /// The cell of a tile of K or V that is a warp's j-th: of V two that follow each other share a word.
    DEVICE int cell(int warp, int j) const { return values ? 8 * warp + j : warp + WARPS * j; }
};

/// Asks for cells of a warp's eight of a slice, from the `begin`-th on. What is past its end is 0, in all types.
template <int CELLS> DEVICE void fetch(const AttentionArgs &a, int head, const Next &next, int begin, Fetched<CELLS> &to) {
    // Opaque, so that what follows from the type does not stay in registers.
    const int type = opaque(next.values ? a.v.type : a.k.type), dim = next.values ? a.v.dim : a.k.dim;
    const int64_t row_bytes = next.values ? a.v.row_bytes : a.k.row_bytes;
    const uint8_t *of_head = (next.values ? a.v.cells : a.k.cells) + int64_t(opaque(head)) * a.capacity * row_bytes;
    const int me = opaque(lane()), warp = opaque(threadIdx.x / 32), i = next.slice * (SLICE / 2) + me;
    // A lane knows where the cell `lane` of the tile is.
    const int own = (next.first + me) % a.capacity;
    const uint8_t *cells[CELLS];
    bool there[CELLS];
#pragma unroll
    for (int j = 0; j < CELLS; j++) {
        const int cell = next.cell(warp, begin + j);
        there[j] = cell < next.count && 2 * i < dim;
        cells[j] = of_head + __shfl_sync(ALL_LANES, own, cell) * row_bytes;
        for (int k = 0; k < 4; k++) to.piece[j][k] = 0;
    }
    if (type == CACHE_F16) {
#pragma unroll
        for (int j = 0; j < CELLS; j++)
            if (there[j]) to.piece[j][0] = load<uint32_t>(cells[j] + 4 * i);
        return;
    }
    const Pieces pieces(type, i);
#pragma unroll
    for (int j = 0; j < CELLS; j++)
        for (int k = 0; k < 2; k++)
            if (there[j]) to.piece[j][k] = load16(cells[j] + pieces.at[k]);
    if (!pieces.four) return;
#pragma unroll
    for (int j = 0; j < CELLS; j++)
        for (int k = 2; k < 4; k++)
            if (there[j]) to.piece[j][k] = load16(cells[j] + pieces.at[k]);
}

/// A lane's two values as halves; scaled, all of a cell's alike.
DEVICE float scaled_halves(int type, const Raw &raw, int i, bool &odd, uint32_t &high, uint32_t &low) {
    float x, y;
    decode_pair(type, raw, i, x, y);
    odd = !number(x) || !number(y);
    const Unit u = unit(warp_max_bits(larger(number(x) ? magnitude(x) : 0, number(y) ? magnitude(y) : 0)));
    halve(x * u.up, y * u.up, high, low);
    return u.down;
}

/// Cells of a slice of K that a warp has fetched.
template <int CELLS> DEVICE void put_keys(const AttentionArgs &a, int slice, int begin, const Fetched<CELLS> &from, const Parts &s) {
    const int me = opaque(lane()), first = opaque(threadIdx.x / 32) + WARPS * begin;
#pragma unroll
    for (int j = 0; j < CELLS; j++) {
        const int at = Parts::key(first + WARPS * j, me);
        const Raw raw = from.raw(j);
        s.high[at] = raw.x;
        // It is in the place of what is made of it, which no other lane touches before.
        if (a.k.type != CACHE_F16) s.low[at] = raw.y;
    }
    if (a.k.type == CACHE_F16) return;
#pragma unroll 1
    for (int j = 0; j < CELLS; j++) {
        const int cell = first + WARPS * j, at = Parts::key(cell, me);
        bool odd;
        const Raw raw = {s.high[at], s.low[at]};
        const float down = scaled_halves(opaque(a.k.type), raw, slice * (SLICE / 2) + me, odd, s.high[at], s.low[at]);
        if (lane() == 0) s.down_k[cell] = down;
    }
}

/// The f16 in the low or high half of a word: whether it is a number; what is none becomes 0.
DEVICE bool number_or_zero(uint32_t &word, int shift) {
    const bool good = (word >> shift & 0x7c00) != 0x7c00;
    if (!good) word &= ~(0xffffu << shift);
    return good;
}

/// As `put_keys`, of V; what is no number is 0. A word has two cells. Gives those among which something was no number.
template <int CELLS>
DEVICE uint32_t put_values(const AttentionArgs &a, int slice, int begin, const Fetched<CELLS> &from, const Parts &s) {
    const int me = opaque(lane()), first = opaque(threadIdx.x / 32) * 8 + begin;
    uint32_t all_odd = 0;
    if (a.v.type == CACHE_F16) {
#pragma unroll
        for (int j = 0; j < CELLS; j += 2) {
            const int cell = first + j;
            uint32_t words[2] = {from.raw(j).x, from.raw(j + 1).x};
            bool good = true;
            for (int c = 0; c < 2; c++) {
                good &= number_or_zero(words[c], 0);
                good &= number_or_zero(words[c], 16);
            }
            // Either of the two cells: what is a number is not added once more.
            if (__ballot_sync(ALL_LANES, !good)) all_odd |= 3u << cell;
            for (int k = 0; k < 2; k++)
                s.high[Parts::value(2 * me + k, cell / 2)] = pair(uint16_t(words[0] >> 16 * k), uint16_t(words[1] >> 16 * k));
        }
    } else {
#pragma unroll
        for (int j = 0; j < CELLS; j++) {
            const int at = Parts::value(2 * me + j % 2, (first + j) / 2);
            s.high[at] = from.raw(j).x;
            s.low[at] = from.raw(j).y;
        }
#pragma unroll 1
        for (int j = 0; j < CELLS; j += 2) {
            const int cell = first + j, at[2] = {Parts::value(2 * me, cell / 2), Parts::value(2 * me + 1, cell / 2)};
            uint32_t high[2], low[2];
            const Raw raw[2] = {{s.high[at[0]], s.low[at[0]]}, {s.high[at[1]], s.low[at[1]]}};
#pragma unroll
            for (int c = 0; c < 2; c++) {
                bool odd;
                const float down = scaled_halves(opaque(a.v.type), raw[c], slice * (SLICE / 2) + me, odd, high[c], low[c]);
                if (lane() == 0) s.down_v[cell + c] = down;
                if (__ballot_sync(ALL_LANES, odd)) all_odd |= 1u << (cell + c);
                for (int shift = 0; shift < 32; shift += 16) {
                    number_or_zero(high[c], shift);
                    number_or_zero(low[c], shift);
                }
            }
            for (int k = 0; k < 2; k++) {
                s.high[at[k]] = pair(uint16_t(high[0] >> 16 * k), uint16_t(high[1] >> 16 * k));
                s.low[at[k]] = pair(uint16_t(low[0] >> 16 * k), uint16_t(low[1] >> 16 * k));
            }
        }
    }
    return all_odd;
}

/// Adds a slice of q.k of a warp's 16 queries and CELLS times 8 cells. `whole`: K has no low halves.
template <int CELLS>
DEVICE void add_scores(const Parts &s, int row, int cell, int slice, int width, bool whole, float (&score)[CELLS][4]) {
    const int me = opaque(lane()), g = me / 4, k = me % 4;
    float high[CELLS][4], low[CELLS][4];
    for (int n = 0; n < CELLS; n++)
        for (int i = 0; i < 4; i++) high[n][i] = low[n][i] = 0;
    for (int word = k; word < width / 2; word += 8) {
        const int at = (row + g) * s.words + slice * (SLICE / 2) + word, lower = 8 * s.words;
        const uint32_t q_high[4] = {s.q_high[at], s.q_high[at + lower], s.q_high[at + 4], s.q_high[at + lower + 4]};
        const uint32_t q_low[4] = {s.q_low[at], s.q_low[at + lower], s.q_low[at + 4], s.q_low[at + lower + 4]};
#pragma unroll
        for (int n = 0; n < CELLS; n++) {
            const int from = Parts::key(cell + 8 * n + g, word), next = Parts::key(cell + 8 * n + g, word + 4);
            const uint32_t k_high[2] = {s.high[from], s.high[next]};
            mma_f16(high[n], q_high, k_high);
            mma_f16(low[n], q_low, k_high);
            if (!whole) {
                const uint32_t k_low[2] = {s.low[from], s.low[next]};
                mma_f16(low[n], q_high, k_low);
            }
        }
    }
    for (int n = 0; n < CELLS; n++)
        for (int i = 0; i < 4; i++) {
            const float sum = high[n][i] + low[n][i];
            score[n][i] = whole ? score[n][i] + sum : fmaf(sum, s.down_k[cell + 8 * n + 2 * k + i % 2], score[n][i]);
        }
}

/// What a lane knows of one of its two rows of queries.
struct Row {
    int low, high;   // positions that it sees; none if there is no such query
    Softmax all, part;
    float factor;            // for values of the split so far
    DEVICE bool sees(int position) const { return position >= low && position < high; }
};

/// The cell j of eight of a tile of which a lane has shares: 2k and 2k + 1 of each eight.
DEVICE int cell_of(int j, int lane) { return j / 2 * 8 + 2 * (lane % 4) + j % 2; }

/// A tile's shares of a lane's two rows. As halves they are the left sides of two products, of cells 0..16 and 16..32; those
/// are scaled as values are, and `down` is what results must be multiplied by.
struct Shares {
    float share[2][8], down[2];
    uint32_t high[2][4], low[2][4];

    DEVICE void halves(const Parts &s, int first, const Row (&rows)[2], bool whole) {
        const int me = opaque(lane());
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = whole ? 1.0f : 0.0f;
            if (!whole) {
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (rows[r].sees(first + cell_of(j, me))) most = fmaxf(most, s.down_v[cell_of(j, me)]);
                for (int step = 2; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, step));
            }
            // All are powers of two. A row that sees none of the cells has shares of 0.
            const float up = most > 0 ? 1 / most : 1.0f;
            down[r] = most * (1 / SHARE_UP);
            float x[8];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const bool seen = rows[r].sees(first + cell_of(j, me));
                x[j] = share[r][j] * (whole ? SHARE_UP : seen ? s.down_v[cell_of(j, me)] * up * SHARE_UP : 0.0f);
            }
#pragma unroll
            for (int j = 0; j < 4; j++)
                halve(x[2 * j], x[2 * j + 1], high[j / 2][j % 2 * 2 + r], low[j / 2][j % 2 * 2 + r]);
        }
    }
};

/// Exponentiates the scores of a tile.
DEVICE void exponentiate(const Parts &s, int query, int first, Row (&rows)[2], Shares &shares) {
    const int me = opaque(lane());
    query += me / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        Row &row = rows[r];
        float x[8], largest = row.part.largest;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            x[j] = s.scores[Parts::score(query + 8 * r, cell_of(j, me))];
            if (row.sees(first + cell_of(j, me))) largest = fmaxf(largest, x[j]);
        }
        for (int step = 2; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, step));
        float sum = 0;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            shares.share[r][j] = row.sees(first + cell_of(j, me)) ? expf(x[j] - largest) : 0.0f;
            sum += shares.share[r][j];
        }
        sum = warp_sum<4>(sum);
        // A row that sees nothing of the tile stays as it is, also before its first cell.
        const bool sees = row.low < first + TILE && row.high > first;
        row.factor = sees ? expf(row.part.largest - largest) : 1.0f;
        row.part.sum = row.part.sum * row.factor + sum;
        row.part.largest = largest;
    }
}

/// Shares times a slice of V, of a warp's COLUMNS times 8 columns.
template <int COLUMNS>
DEVICE void multiply(const Parts &s, const Shares &shares, int column, bool whole, float (&sum)[COLUMNS][4]) {
    const int me = opaque(lane()), g = me / 4, k = me % 4;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) {
        float high[4] = {0, 0, 0, 0}, low[4] = {0, 0, 0, 0};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int from = Parts::value(column + 8 * n + g, 8 * half + k), next = Parts::value(column + 8 * n + g, 8 * half + k + 4);
            const uint32_t v_high[2] = {s.high[from], s.high[next]};
            mma_f16(high, shares.high[half], v_high);
            mma_f16(low, shares.low[half], v_high);
            if (!whole) {
                const uint32_t v_low[2] = {s.low[from], s.low[next]};
                mma_f16(low, shares.high[half], v_low);
            }
        }
        for (int i = 0; i < 4; i++) sum[n][i] = (high[i] + low[i]) * shares.down[i / 2];
    }
}

/// Adds values that are no numbers, which rows that do not see them must not meet.
template <int COLUMNS>
DEVICE void add_odd(const AttentionArgs &a, const Parts &s, int head, int first, int query, int column, const Row (&rows)[2],
                    float (&sum)[COLUMNS][4]) {
    uint32_t cells = 0;
    for (int warp = 0; warp < WARPS; warp++) cells |= s.odd[warp];
    if (cells == 0) return;
    const int me = opaque(lane());
    query += me / 4;
#pragma unroll 1
    for (int cell = 0; cell < TILE; cell++) {
        if (!(cells >> cell & 1)) continue;
        const uint8_t *from = cell_at(a.v, a.capacity, head, first + cell);
#pragma unroll 1
        for (int n = 0; n < COLUMNS; n++) {
            const int d = column + 8 * n + me % 4 * 2;
            if (d >= a.v.dim) break;
            float x[2];
            load_pair(from, a.v.type, d / 2, x[0], x[1]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const Row &row = rows[i / 2];
                if (number(x[i % 2]) || !row.sees(first + cell)) continue;
                const float share = expf(s.scores[Parts::score(query + i / 2 * 8, cell)] - row.part.largest);
                // Registers have no numbers that are known only here.
#pragma unroll
                for (int m = 0; m < COLUMNS; m++)
                    if (m == n) sum[m][i] = fmaf(share, x[i % 2], sum[m][i]);
            }
        }
    }
}

// Blocks: x a split (or all of them), y 16 * TILES queries, z a head of K and V, of whose values there are SLICES slices.
template <int TILES, int SLICES> DEVICE void attention(const AttentionArgs &a) {
    DYNAMIC_SHARED(char, shared);
    const int SHARING = WARPS / TILES, CELLS = TILE / 8 / SHARING, COLUMNS = SLICE / 8 / SHARING;
    const Parts s(shared, 16 * TILES, a.k.dim);
    const Queries q(a, 16 * TILES);
    const int warp = threadIdx.x / 32, first_query = warp / SHARING * 16, query = first_query + lane() / 4;
    const int first_column = warp % SHARING * COLUMNS * 8;
    const int padded_k = (a.k.dim + 15) / 16 * 16;
    const bool whole_k = a.k.type == CACHE_F16, whole_v = a.v.type == CACHE_F16;

    load_queries(a, q, 16 * TILES, s);
    Row rows[2];
    // In registers: every loop over them is unrolled.
    float all[SLICES][COLUMNS][4], part[SLICES][COLUMNS][4];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        Row &row = rows[r];
        const int number = q.first + query + 8 * r;
        row.high = q.high(a, number);
        row.low = q.low(a, row.high);
        row.all = begin(number < q.count ? a.sinks : 0, q.head(number));
        row.part = begin(0, 0);
        row.factor = 1;
    }
#pragma unroll
    for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) all[slice][n][i] = part[slice][n][i] = 0;

    const Cells c(a, q, 16 * TILES);
    // While a slice is multiplied the next one is on its way: of K, then of V, then of the next tile, with which the next
    // split begins, too. Large heads have no registers for that.
    const bool AHEAD = SLICES <= 2;
    const int AT_ONCE = AHEAD ? 8 : 2, last = a.partial ? c.end_tile(c.first_split) : c.end;
    Fetched<AT_ONCE> fetched;
    const auto ask = [&](bool values, int first, int slice, int begin) {
        fetch(a, q.head_kv, {values, first, last - first, slice}, begin, fetched);
    };
    if (AHEAD) ask(false, c.first_tile(c.first_split), 0, 0);
    for (int split = c.first_split; split < c.end_split; split++) {
        const int tile_end = c.end_tile(split);
        for (int first = c.first_tile(split); first < tile_end; first += TILE) {
            const int first_cell = opaque(warp) % SHARING * CELLS * 8;
            float score[CELLS][4];
            for (int n = 0; n < CELLS; n++)
                for (int i = 0; i < 4; i++) score[n][i] = 0;
#pragma unroll 1
            for (int slice = 0; slice * SLICE < padded_k; slice++) {
                const int left = padded_k - slice * SLICE;
                const bool done = left <= SLICE;
                __syncthreads();
#pragma unroll 1
                for (int begin = 0; begin < 8; begin += AT_ONCE) {
                    if (!AHEAD) ask(false, first, slice, begin);
                    put_keys(a, slice, begin, fetched, s);
                }
                if (AHEAD) ask(done, first, done ? 0 : slice + 1, 0);
                __syncthreads();
                add_scores(s, first_query, first_cell, slice, left < SLICE ? left : SLICE, whole_k, score);
            }
            const int me = opaque(lane());
#pragma unroll
            for (int n = 0; n < CELLS; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int to = first_query + me / 4 + i / 2 * 8, cell = first_cell + 8 * n + me % 4 * 2 + i % 2;
                    s.scores[Parts::score(to, cell)] = softened(a, score[n][i] * s.down[to]);
                }
            Shares shares;
#pragma unroll 1
            for (int slice = 0; slice * SLICE < a.v.dim; slice++) {
                const bool more = (slice + 1) * SLICE < a.v.dim;
                __syncthreads();
                uint32_t odd = 0;
#pragma unroll 1
                for (int begin = 0; begin < 8; begin += AT_ONCE) {
                    if (!AHEAD) ask(true, first, slice, begin);
                    odd |= put_values(a, slice, begin, fetched, s);
                }
                if (lane() == 0) s.odd[threadIdx.x / 32] = odd;
                if (AHEAD) ask(more, more ? first : first + TILE, more ? slice + 1 : 0, 0);
                __syncthreads();
                if (slice == 0) exponentiate(s, first_query, first, rows, shares);
                if (slice == 0 || !whole_v) shares.halves(s, first, rows, whole_v);
                float sum[COLUMNS][4];
                multiply(s, shares, first_column, whole_v, sum);
                add_odd(a, s, q.head_kv, first, first_query, slice * SLICE + first_column, rows, sum);
#pragma unroll
                for (int known = 0; known < SLICES; known++) {
                    if (known != slice) continue;
#pragma unroll
                    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            part[known][n][i] = fmaf(part[known][n][i], rows[i / 2].factor, sum[n][i]);
                }
            }
        }
        if (a.partial) break;
        float factors[2][2];
        bool some[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            some[r] = !(rows[r].part.sum == 0);
            factors[r][0] = factors[r][1] = 1;
            if (some[r]) merge(rows[r].all, rows[r].part, factors[r][0], factors[r][1]);
            rows[r].part = begin(0, 0);
        }
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
            for (int n = 0; n < COLUMNS; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float &x = all[slice][n][i];
                    if (some[i / 2]) x = fmaf(part[slice][n][i], factors[i / 2][1], x * factors[i / 2][0]);
                    part[slice][n][i] = 0;
                }
    }

    const int me = opaque(lane());
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const Row &row = rows[r];
        if (row.high == 0) continue;
        float *to = result_at(a, q, q.first + first_query + me / 4 + 8 * r);
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
            for (int n = 0; n < COLUMNS; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int d = slice * SLICE + first_column + 8 * n + me % 4 * 2 + i;
                    const float x = all[slice][n][2 * r + i] / row.all.sum;
                    if (d < a.v.dim) to[d] = a.partial ? part[slice][n][2 * r + i] : x;
                }
        if (a.partial && me % 4 == 0 && first_column == 0) {
            to[a.v.dim] = row.part.largest;
            to[a.v.dim + 1] = row.part.sum;
        }
    }
    round_results(a, q, 16 * TILES);
}
