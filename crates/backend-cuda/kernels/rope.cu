// Rotary position embeddings: a thread turns one pair.
#include "device.h"

struct RopeArgs {
    float *x;                    // [n, heads, head_dim]
    const uint32_t *positions;   // [n]
    const float *factors;        // [half] or null
    const double *turns;         // [half]: half turns per position
    int32_t n, heads, head_dim, half;
    int32_t adjacent;            // 1: pairs are (2i, 2i + 1); 0: (i, i + half)
    float magnitude;
};

KERNEL(rope, RopeArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= int64_t(a.n) * a.heads * a.half) return;
    const int i = int(index % a.half);
    const int64_t head = index / a.half;
    // At large positions f32 has no digits left: whole turns are taken off in f64.
    double turn = double(a.positions[head / a.heads]) * a.turns[i];
    if (a.factors) turn /= double(a.factors[i]);
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
