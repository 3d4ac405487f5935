// Recurrent mixers, token by token. A head's state is worked on where it is kept.
#include "device.h"

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

/// A row divided by its length, or by `eps` if that is more.
DEVICE void unit(const float *x, int dim, float eps, float *out) {
    float squares = 0;
    for (int i = lane(); i < dim; i += 32) squares = fmaf(x[i], x[i], squares);
    const float factor = 1.0f / fmaxf(sqrtf(warp_sum(squares)), eps);
    for (int i = lane(); i < dim; i += 32) out[i] = x[i] * factor;
}

// Blocks: x a value head, y 32 columns of its state, one for each lane. Shared: q and k, f32 [dim] each.
KERNEL(delta_net, DeltaNetArgs, 32) {
    DYNAMIC_SHARED(float, q);
    float *k = q + a.dim;
    const int head = blockIdx.x, column = blockIdx.y * 32 + lane(), dim = a.dim;
    const int head_k = a.tiled ? head % a.heads_k : head / (a.heads_v / a.heads_k);
    const int64_t keys = int64_t(a.heads_k) * dim, width = 2 * keys + int64_t(a.heads_v) * dim;
    const bool mine = column < dim;
    float *state = a.after + int64_t(head) * dim * dim + column;
    for (int i = 0; mine && i < dim; i++)
        state[i * dim] = a.before ? a.before[(int64_t(head) * dim + i) * dim + column] : 0.0f;
    const float scale = 1.0f / sqrtf(float(dim));
    for (int token = 0; token < a.n; token++) {
        const float *row = a.qkv + token * width;
        __syncwarp();
        unit(row + int64_t(head_k) * dim, dim, a.eps, q);
        unit(row + keys + int64_t(head_k) * dim, dim, a.eps, k);
        __syncwarp();
        if (!mine) continue;
        const int64_t at = int64_t(token) * a.heads_v + head;
        const float decay = expf(a.decay[head] * softplus(a.alpha[at] + a.dt_bias[head]));
        const float beta = 1.0f / (1.0f + expf(-a.beta[at]));
        float found = 0, out = 0;
        for (int i = 0; i < dim; i++) found = fmaf(k[i], state[i * dim] * decay, found);
        const float delta = (row[2 * keys + int64_t(head) * dim + column] - found) * beta;
        for (int i = 0; i < dim; i++) {
            const float value = fmaf(k[i], delta, state[i * dim] * decay);
            state[i * dim] = value;
            out = fmaf(q[i] * scale, value, out);
        }
        a.out[at * dim + column] = out;
    }
}

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

// Blocks: x a head, y four rows of its state, one for each warp.
KERNEL(state_space, StateSpaceArgs, 128) {
    const int head = blockIdx.x, i = blockIdx.y * 4 + threadIdx.x / 32;
    if (i >= a.dim) return;
    const int64_t values = int64_t(a.heads) * a.dim, shared = int64_t(a.groups) * a.size, width = values + 2 * shared;
    const int64_t group = int64_t(head / (a.heads / a.groups)) * a.size, row = (int64_t(head) * a.dim + i) * a.size;
    for (int s = lane(); s < a.size; s += 32) a.after[row + s] = a.before ? a.before[row + s] : 0.0f;
    for (int token = 0; token < a.n; token++) {
        const float *xbc = a.xbc + token * width;
        const float step = softplus(a.dt[int64_t(token) * a.heads + head] + a.dt_bias[head]);
        const float decay = expf(a.decay[head] * step), x = xbc[int64_t(head) * a.dim + i];
        float sum = 0;
        for (int s = lane(); s < a.size; s += 32) {
            const float value = fmaf(step * x, xbc[values + group + s], a.after[row + s] * decay);
            a.after[row + s] = value;
            sum = fmaf(value, xbc[values + shared + group + s], sum);
        }
        sum = warp_sum(sum);
        if (lane() == 0) a.out[(int64_t(token) * a.heads + head) * a.dim + i] = sum + a.skip[head] * x;
    }
}
