// Operations on values one by one.
#include "activation.h"
#include "rounding.h"

struct ZipArgs {
    const float *a, *b;
    float *out;             // may be a or b
    Activations *rounded;   // mul: of the result, or null; if not, `len` is whole blocks of 32
    int64_t len;
    float scale;
    int32_t unused;
};

KERNEL(add, ZipArgs, 256) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < a.len) a.out[i] = a.a[i] + a.scale * a.b[i];
}

KERNEL(mul, ZipArgs, 256) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= a.len) return;
    const float y = a.a[i] * a.b[i];
    a.out[i] = y;
    if (a.rounded) round_to(a.rounded[i / 32], y);
}

struct MapArgs {
    float *x;
    Activations *rounded;   // activate_all: as in ZipArgs
    int64_t len;
    float factor;   // scale: the factor; softcap: the cap
    int32_t act;
    float alpha, limit;
};

KERNEL(scale, MapArgs, 256) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < a.len) a.x[i] *= a.factor;
}

KERNEL(softcap, MapArgs, 256) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < a.len) a.x[i] = a.factor * tanhf(a.x[i] / a.factor);
}

KERNEL(activate_all, MapArgs, 256) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= a.len) return;
    const float y = activate(a.act, a.alpha, a.limit, a.x[i]);
    a.x[i] = y;
    if (a.rounded) round_to(a.rounded[i / 32], y);
}
