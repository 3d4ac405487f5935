// Heads of queries and keys between their products and attention: their norm, their rotary position embedding, the rotation of
// quantized caches, their way into the cache, with the values. A warp has a head, so that nothing has to wait for others.
#include "hadamard.h"
#include "norm.h"
#include "store.h"

/// Queries or keys.
struct Part {
    float *x;              // [n, heads, head_dim]
    const float *weight;   // as in NormSpec
    const float *bias;
    int32_t heads;         // 0: there is no such part
    int32_t norm;          // 0: none; 1: RMS; 2: subtract the mean
    float eps;
    int32_t stored;        // 1: into k
    int32_t rotated;       // in blocks of so many values, at most LARGEST; 0: not
    float scale;           // of that
};

struct HeadsArgs {
    Part parts[2];
    const uint32_t *positions;   // [n]
    const float *factors;        // [half] or null
    const float *mix;            // [half]: the share of the extrapolated angle
    Stream k, v;
    float *v_input;              // [n, heads_v, v.dim]
    int32_t n, head_dim, half;
    int32_t adjacent;            // 1: pairs are (2i, 2i + 1); 0: (i, i + half)
    float step, freq_scale, magnitude;
    int32_t heads_v;             // 0: nothing is stored
    int32_t capacity, start;
    int32_t v_rotated;           // as of a part
    float v_scale;
};

/// Turns pair i.
DEVICE void turn(const HeadsArgs &a, uint32_t position, int i, float *x) {
    // As ggml and the CPU device: every pair's angle is the rounded product of the one before it.
    float extrapolated = float(position);
    for (int j = 0; j < i; j++) extrapolated *= a.step;
    if (a.factors) extrapolated /= a.factors[i];
    const float interpolated = a.freq_scale * extrapolated, mix = a.mix[i];
    const float angle = mix == 0.0f ? interpolated : interpolated * (1.0f - mix) + extrapolated * mix;
    // Whole turns are taken off in f64, which is exact enough for any angle.
    double turn = double(angle) * 0.31830988618379067;
    turn -= 2.0 * rint(turn * 0.5);
    float sine, cosine;
    sincospif(float(turn), &sine, &cosine);
    sine *= a.magnitude;
    cosine *= a.magnitude;
    float *p = x + (a.adjacent ? 2 * i : i), *q = x + (a.adjacent ? 2 * i + 1 : i + a.half);
    const float u = *p, v = *q;
    *p = u * cosine - v * sine;
    *q = u * sine + v * cosine;
}

const int WARPS = 4, LARGEST = 256;

/// Rotates a row, which is whole blocks. Other lanes see it.
DEVICE void rotate(float *x, int dim, int block, float scale, float *values) {
    if (!block) return;
    for (int i = 0; i < dim; i += block) {
        __syncwarp();
        transform<true>(x + i, values, block, scale);
    }
}

// Blocks: x a token, y some heads: those of both parts, then those of V.
KERNEL(heads, HeadsArgs, 32 * WARPS) {
    __shared__ float all_values[WARPS * LARGEST];
    float *values = all_values + threadIdx.x / 32 * LARGEST;
    const int token = blockIdx.x;
    int head = blockIdx.y * WARPS + threadIdx.x / 32;
    const int cell = a.heads_v ? int((int64_t(a.start) + token) % a.capacity) : 0;
    if (head >= a.parts[0].heads + a.parts[1].heads) {
        head -= a.parts[0].heads + a.parts[1].heads;
        if (head >= a.heads_v) return;
        uint8_t *out = a.v.cells + (int64_t(head) * a.capacity + cell) * a.v.row_bytes;
        float *v = a.v_input + (int64_t(token) * a.heads_v + head) * a.v.dim;
        // What a lane stores it has written itself.
        rotate(v, a.v.dim, a.v_rotated, a.v_scale, values);
        store_row(a.v, v, out, lane(), 32);
        return;
    }
    const bool second = head >= a.parts[0].heads;
    const Part part = second ? a.parts[1] : a.parts[0];
    if (second) head -= a.parts[0].heads;
    float *x = part.x + (int64_t(token) * part.heads + head) * a.head_dim;
    if (part.norm) {
        const NormSpec spec = {part.weight, part.bias, a.head_dim, part.norm == 2, part.eps};
        norm_row<true>(spec, x, x, nullptr, nullptr);
        __syncwarp();
    }
    const uint32_t position = a.positions[token];
    for (int i = lane(); i < a.half; i += 32) turn(a, position, i, x);
    rotate(x, a.head_dim, part.rotated, part.scale, values);
    if (!part.stored) return;
    __syncwarp();
    store_row(a.k, x, a.k.cells + (int64_t(head) * a.capacity + cell) * a.k.row_bytes, lane(), 32);
}
