// Rotary position embeddings: a thread turns one pair.
#include "device.h"

struct RopeArgs {
    float *x;                    // [n, heads, head_dim]
    const uint32_t *positions;   // [n]
    const float *factors;        // [half] or null
    const float *mix;            // [half]: the share of the extrapolated angle
    int32_t n, heads, head_dim, half;
    int32_t adjacent;            // 1: pairs are (2i, 2i + 1); 0: (i, i + half)
    float step, freq_scale, magnitude;
};

KERNEL(rope, RopeArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= int64_t(a.n) * a.heads * a.half) return;
    const int i = int(index % a.half);
    const int64_t head = index / a.half;
    // As ggml and the CPU device: every pair's angle is the rounded product of the one before it.
    float extrapolated = float(a.positions[head / a.heads]);
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
    float *x = a.x + head * a.head_dim;
    float *p = x + (a.adjacent ? 2 * i : i), *q = x + (a.adjacent ? 2 * i + 1 : i + a.half);
    const float u = *p, v = *q;
    *p = u * cosine - v * sine;
    *q = u * sine + v * cosine;
}
