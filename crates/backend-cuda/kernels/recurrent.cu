// Recurrent mixers, token by token. A head's state stays in registers from the first token to the last; where it has a size that
// no model is known to have, it is worked on where it is kept.
#include "device.h"

/// What a thread has of a state: so many values in registers, or, of 0, any number of them, `stride` apart in memory.
template <int COUNT> struct Part {
    float values[COUNT];
    DEVICE Part(float *, int) {}
    DEVICE float &operator[](int i) { return values[i]; }
};
template <> struct Part<0> {
    float *first;
    int stride;
    DEVICE Part(float *first, int stride) : first(first), stride(stride) {}
    DEVICE float &operator[](int i) { return first[i * stride]; }
};

/// ln(1 + e^x), which is x where e^x has no room beside it.
DEVICE float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

struct DeltaNetArgs {
    const float *qkv;              // [n, 2 heads_k dim + heads_v dim]
    const float *alpha, *beta;     // [n, heads_v]
    const float *dt_bias, *decay;  // [heads_v]
    const float *before;           // [heads_v, dim, dim] or null
    float *after;                  // [heads_v, dim, dim]
    float *out;                    // [n, heads_v, dim]
    int32_t n, heads_k, heads_v, dim;
    int32_t tiled;
    float eps;
};

/// A row divided by its length, or by `eps` if that is more, times a scale.
DEVICE void unit(const float *x, int dim, float eps, float scale, float *out) {
    float squares = 0;
    for (int i = lane(); i < dim; i += 32) squares = fmaf(x[i], x[i], squares);
    const float factor = 1.0f / fmaxf(sqrtf(warp_sum(squares)), eps);
    for (int i = lane(); i < dim; i += 32) out[i] = x[i] * factor * scale;
}

// Blocks: x a value head, y 32 columns of its state, one for each lane. Shared: q and k, f32 [dim] each.
template <int DIM> DEVICE void delta_net(const DeltaNetArgs &a) {
    DYNAMIC_SHARED(float, q);
    const int dim = DIM ? DIM : a.dim, head = blockIdx.x, column = blockIdx.y * 32 + lane();
    float *k = q + dim;
    const int head_k = a.tiled ? head % a.heads_k : head / (a.heads_v / a.heads_k);
    const int64_t keys = int64_t(a.heads_k) * dim, width = 2 * keys + int64_t(a.heads_v) * dim;
    const bool mine = column < dim;
    const int64_t kept = int64_t(head) * dim * dim + column;
    Part<DIM> state(a.after + kept, dim);
#pragma unroll
    for (int i = 0; i < dim; i++)
        if (mine) state[i] = a.before ? a.before[kept + i * dim] : 0.0f;
    const float scale = 1.0f / sqrtf(float(dim));
    for (int token = 0; token < a.n; token++) {
        const float *row = a.qkv + token * width;
        __syncwarp();
        unit(row + int64_t(head_k) * dim, dim, a.eps, scale, q);
        unit(row + keys + int64_t(head_k) * dim, dim, a.eps, 1.0f, k);
        __syncwarp();
        if (!mine) continue;
        const int64_t at = int64_t(token) * a.heads_v + head;
        const float decay = expf(a.decay[head] * softplus(a.alpha[at] + a.dt_bias[head]));
        const float beta = 1.0f / (1.0f + expf(-a.beta[at]));
        float found = 0, out = 0;
#pragma unroll
        for (int i = 0; i < dim; i++) found = fmaf(k[i], state[i] * decay, found);
        const float delta = (row[2 * keys + int64_t(head) * dim + column] - found) * beta;
        // Read again: there are no registers for it.
        const float *both = q + 4 * opaque(0);
#pragma unroll
        for (int i = 0; i < dim; i++) {
            const float value = fmaf(both[dim + i], delta, state[i] * decay);
            state[i] = value;
            out = fmaf(both[i], value, out);
        }
        a.out[at * dim + column] = out;
    }
#pragma unroll
    for (int i = 0; i < DIM; i++)
        if (mine) a.after[kept + i * dim] = state[i];
}

KERNEL(delta_net_64, DeltaNetArgs, 32) { delta_net<64>(a); }
KERNEL(delta_net_128, DeltaNetArgs, 32) { delta_net<128>(a); }
KERNEL(delta_net_any, DeltaNetArgs, 32) { delta_net<0>(a); }

struct StateSpaceArgs {
    const float *xbc;                     // [n, heads dim + 2 groups size]
    const float *dt;                      // [n, heads]
    const float *dt_bias, *decay, *skip;  // [heads]
    const float *before;                  // [heads, dim, size] or null
    float *after;                         // [heads, dim, size]
    float *out;                           // [n, heads, dim]
    int32_t n, heads, dim, size, groups;
    int32_t unused;
};

// Blocks: x a head, y four rows of its state, one for each warp. MOST: values that a lane has of a row at most; 0: any number.
template <int MOST> DEVICE void state_space(const StateSpaceArgs &a) {
    const int head = blockIdx.x, i = blockIdx.y * 4 + threadIdx.x / 32;
    if (i >= a.dim) return;
    const int64_t values = int64_t(a.heads) * a.dim, shared = int64_t(a.groups) * a.size, width = values + 2 * shared;
    const int64_t group = int64_t(head / (a.heads / a.groups)) * a.size;
    const int64_t kept = (int64_t(head) * a.dim + i) * a.size + lane();
    const int rounds = MOST ? MOST : (a.size + 31) / 32;
    Part<MOST> state(a.after + kept, 32);
#pragma unroll
    for (int j = 0; j < rounds; j++)
        if (lane() + 32 * j < a.size) state[j] = a.before ? a.before[kept + 32 * j] : 0.0f;
    for (int token = 0; token < a.n; token++) {
        const float *xbc = a.xbc + token * width;
        const float step = softplus(a.dt[int64_t(token) * a.heads + head] + a.dt_bias[head]);
        const float decay = expf(a.decay[head] * step), x = xbc[int64_t(head) * a.dim + i];
        const float *b = xbc + values + group + lane(), *c = b + shared;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < rounds; j++) {
            if (lane() + 32 * j >= a.size) continue;
            const float value = fmaf(step * x, b[32 * j], state[j] * decay);
            state[j] = value;
            sum = fmaf(value, c[32 * j], sum);
        }
        sum = warp_sum(sum);
        if (lane() == 0) a.out[(int64_t(token) * a.heads + head) * a.dim + i] = sum + a.skip[head] * x;
    }
#pragma unroll
    for (int j = 0; j < MOST; j++)
        if (lane() + 32 * j < a.size) a.after[kept + 32 * j] = state[j];
}

KERNEL(state_space_4, StateSpaceArgs, 128) { state_space<4>(a); }
KERNEL(state_space_8, StateSpaceArgs, 128) { state_space<8>(a); }
KERNEL(state_space_any, StateSpaceArgs, 128) { state_space<0>(a); }
