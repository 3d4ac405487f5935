// New rows of K and V into their cells, converted to the cache's types.
#include "cache.h"

struct StoreKvArgs {
    Stream k, v;
    const float *k_input, *v_input;   // [n, heads, dim]
    int32_t n, heads, capacity, start;
};

/// Quantizes a warp's 32 values as quant's BlockQ8_0.
DEVICE void store_q8_0(uint8_t *block, float x) {
    const float d = bits_to_float(warp_max_bits(float_to_bits(fabsf(x)))) / 127.0f;
    const float scaled = x * (d == 0 ? 0.0f : 1.0f / d);
    // Half away from zero. What is no number at all becomes 0; its scale says what it was.
    const float q = truncf(scaled + copysignf(0.5f, scaled));
    // Adding a half rounds 0.49999997 up to 1.
    const float nearest = fabsf(scaled) == 0.49999997f ? 0.0f : q;
    reinterpret_cast<int8_t *>(block)[2 + lane()] = int8_t(fabsf(nearest) <= 127 ? int(nearest) : 0);
    if (lane() == 0) *reinterpret_cast<uint16_t *>(block) = float_to_half(d);
}

// Blocks: x a token, y a head, z K or V; whole warps.
KERNEL(store_kv, StoreKvArgs, 256) {
    const Stream s = blockIdx.z == 0 ? a.k : a.v;
    const float *input = (blockIdx.z == 0 ? a.k_input : a.v_input) + (int64_t(blockIdx.x) * a.heads + blockIdx.y) * s.dim;
    const int cell = int((int64_t(a.start) + blockIdx.x) % a.capacity);
    uint8_t *out = s.cells + (int64_t(blockIdx.y) * a.capacity + cell) * s.row_bytes;
    for (int i = threadIdx.x; i < s.dim; i += blockDim.x) {
        const float x = input[i];
        switch (s.type) {
        case CACHE_F32: reinterpret_cast<float *>(out)[i] = x; break;
        case CACHE_F16: reinterpret_cast<uint16_t *>(out)[i] = float_to_half(x); break;
        case CACHE_BF16: reinterpret_cast<uint16_t *>(out)[i] = float_to_bf16(x); break;
        default: store_q8_0(out + 34 * (i / 32), x);
        }
    }
}
