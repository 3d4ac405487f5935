// A gated feed-forward's middle: act(gate) * up.
#include "activation.h"
#include "rounding.h"

struct GluArgs {
    const float *gate, *up;   // [rows, dim], rows `stride` apart
    float *out;               // [rows, dim]; may be the gate
    Activations *rounded;     // of the result, or null; if not, it is whole blocks of 32
    int64_t stride;
    int32_t rows, dim;
    int32_t act;
    float alpha, limit;
    int32_t unused;
};

KERNEL(glu, GluArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= int64_t(a.rows) * a.dim) return;
    const int64_t from = index / a.dim * a.stride + index % a.dim;
    float up = a.up[from];
    if (a.act == CLAMPED_SWIGLU) up = (up > a.limit ? a.limit : up < -a.limit ? -a.limit : up) + 1.0f;
    const float y = activate(a.act, a.alpha, a.limit, a.gate[from]) * up;
    a.out[index] = y;
    if (a.rounded) round_to(a.rounded[index / 32], y);
}
