// Operations on values one by one.
#include "activation.h"

struct ZipArgs {
    const float *a, *b;
    float *out;   // may be a or b
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
    if (i < a.len) a.out[i] = a.a[i] * a.b[i];
}

struct MapArgs {
    float *x;
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
    if (i < a.len) a.x[i] = activate(a.act, a.alpha, a.limit, a.x[i]);
}
