// Activations as products with packed weights read them: rounded to 8 bits, 32 together. Kernels that make what such a product
// reads round it themselves, with the bits of quantize.cu.
#pragma once
#include "dot.h"

/// Rounds a warp's 32 values, of which each lane has one, in order.
DEVICE void round_to(Activations &out, float x) {
    // NaN or infinity anywhere makes the scale, and with it every product, NaN or infinite.
    const float largest = bits_to_float(warp_max_bits(float_to_bits(fabsf(x))));
    const float d = largest / 127.0f, inverse = d > 0 ? 1.0f / d : 0.0f, scaled = x * inverse;
    // Scales that have no reciprocal are those of values that vanish beside all others.
    const int q = fabsf(scaled) <= 127.5f ? int(rintf(scaled)) : 0;
    const int sum = warp_sum_int(q, 16);
    reinterpret_cast<int8_t *>(out.q)[lane()] = int8_t(q);
    if (lane() == 0) out.d = d;
    if (lane() % 16 == 0) out.sums[lane() / 16] = int16_t(sum);
}
