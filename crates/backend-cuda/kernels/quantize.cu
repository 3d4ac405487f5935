// Activations rounded to 8 bits, once for all matrices that read them.
#include "dot.h"

struct QuantizeArgs {
    const float *input;    // [blocks, 32]
    Activations *out;      // [blocks]
    int64_t blocks;
};

// A warp has a block.
KERNEL(quantize, QuantizeArgs, 256) {
    const int64_t block = int64_t(blockIdx.x) * 8 + threadIdx.x / 32;
    if (block >= a.blocks) return;
    const float x = a.input[block * 32 + lane()];
    // NaN or infinity anywhere makes the scale, and with it every product, NaN or infinite.
    const float largest = bits_to_float(warp_max_bits(float_to_bits(fabsf(x))));
    const float d = largest / 127.0f, inverse = d > 0 ? 1.0f / d : 0.0f, scaled = x * inverse;
    // Scales that have no reciprocal are those of values that vanish beside all others.
    const int q = fabsf(scaled) <= 127.5f ? int(rintf(scaled)) : 0;
    const int sum = warp_sum_int(q, 16);
    Activations &out = a.out[block];
    reinterpret_cast<int8_t *>(out.q)[lane()] = int8_t(q);
    if (lane() == 0) out.d = d;
    if (lane() % 16 == 0) out.sums[lane() / 16] = int16_t(sum);
}
