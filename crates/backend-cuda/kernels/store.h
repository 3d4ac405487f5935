// A row of K or V into its cell, converted to the cache's type: with the CPU's bytes.
#pragma once
#include "cache.h"

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

/// The element of largest magnitude of a warp's 32, with its sign; the first of equals.
DEVICE float extreme(float x) {
    float best = x == x ? x : 0.0f;
    int at = lane();
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, best, step);
        const int other_at = __shfl_xor_sync(ALL_LANES, at, step);
        const float mine = fabsf(best), its = fabsf(other);
        if (its > mine || (its == mine && other_at < at)) {
            best = other;
            at = other_at;
        }
    }
    return best;
}

DEVICE float inverse(float d) { return d == 0 ? 0.0f : 1.0f / d; }

/// The sum over a warp in the order of quant's cache quantizers: eight sums of every eighth element, then those in order.
DEVICE float sum_by_eights(float x) {
    const int first = lane() % 8;
    float part = 0;
    for (int k = 0; k < 4; k++) part += __shfl_sync(ALL_LANES, x, first + 8 * k);
    float sum = __shfl_sync(ALL_LANES, part, 0);
    for (int k = 1; k < 8; k++) sum += __shfl_sync(ALL_LANES, part, k);
    return sum;
}

/// The sum over a warp, one element after the other.
DEVICE float sum_in_order(float x) {
    float sum = 0;
    for (int k = 0; k < 32; k++) sum += __shfl_sync(ALL_LANES, x, k);
    return sum;
}

/// quant's q4_0 and q5_0 for caches: of a few scales the one with the least squared error. Gives the scale, and this lane's
/// level.
DEVICE float around_zero(float x, float half, int &level) {
    const float inverse_d = -half * inverse(extreme(x));
    float best = -1.0f, scale = 0, chosen = half;
    for (int i = 0; i < 5; i++) {
        const float reach = i == 0 ? 1.0f : i == 1 ? 1.06f : i == 2 ? 0.94f : i == 3 ? 1.12f : 0.88f;
        const float at = truncf(x * (inverse_d * reach) + (half + 0.5f));
        const float candidate = fminf(fmaxf(at, 0.0f), 2.0f * half - 1.0f), q = candidate - half;
        const float qx = sum_by_eights(q * x), qq = sum_by_eights(q * q);
        const float taken = qq > 0 ? qx * qx / qq : 0.0f;
        if (taken > best) {
            best = taken;
            scale = qq > 0 ? qx / qq : 0.0f;
            chosen = candidate;
        }
    }
    level = int(chosen);
    return scale;
}

/// quant's q4_1 and q5_1: levels between the smallest and the largest element.
DEVICE float from_minimum(float x, float top, int &level, float &min) {
    float max = x;
    min = x;
    for (int step = 16; step > 0; step /= 2) {
        min = fminf(min, __shfl_xor_sync(ALL_LANES, min, step));
        max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, step));
    }
    const float d = (max - min) / top;
    level = int(fmaxf(fminf((x - min) * inverse(d) + 0.5f, top), 0.0f));
    return d;
}

/// quant's iq4_nl for caches: the extreme element gets the lowest value, then the scale is refitted.
DEVICE float uneven(float x, int &level) {
    const float largest = extreme(x), inverse_d = fabsf(largest) >= 1e-15f ? float(iq4_value(0)) / largest : 0.0f;
    const float at = inverse_d * x;
    level = 0;
    for (int k = 0; k < 15; k++) level += at >= float(iq4_value(k) + iq4_value(k + 1)) / 2.0f;
    const float q = float(iq4_value(level)), weight = x * x;
    const float qx = sum_in_order(weight * q * x), qq = sum_in_order(weight * q * q);
    return qq > 0 ? qx / qq : 0.0f;
}

/// Quantizes a warp's 32 values in a type whose levels have four or five bits.
DEVICE void store_levels(uint8_t *block, int type, float x) {
    int level;
    float d, m = 0;
    switch (type) {
    case CACHE_Q4_0: d = around_zero(x, 8.0f, level); break;
    case CACHE_Q5_0: d = around_zero(x, 16.0f, level); break;
    case CACHE_Q4_1: d = from_minimum(x, 15.0f, level, m); break;
    case CACHE_Q5_1: d = from_minimum(x, 31.0f, level, m); break;
    default: d = uneven(x, level);
    }
    uint32_t fifth = uint32_t(level >> 4 & 1) << lane();
    for (int step = 16; step > 0; step /= 2) fifth |= __shfl_xor_sync(ALL_LANES, fifth, step);
    const int upper = __shfl_xor_sync(ALL_LANES, level, 16);
    uint8_t *next = block + (has_offset(type) ? 4 : 2);
    if (lane() == 0) {
        *reinterpret_cast<uint16_t *>(block) = float_to_half(d);
        if (has_offset(type)) *reinterpret_cast<uint16_t *>(block + 2) = float_to_half(m);
    }
    if (has_fifth(type)) {
        if (lane() < 4) next[lane()] = uint8_t(fifth >> 8 * lane());
        next += 4;
    }
    if (lane() < 16) next[lane()] = uint8_t((level & 15) | (upper & 15) << 4);
}

/// Stores a row of a head in the cell at `out`, by whole warps: thread `first` of `step`.
DEVICE void store_row(const Stream &s, const float *input, uint8_t *out, int first, int step) {
    for (int i = first; i < s.dim; i += step) {
        const float x = input[i];
        switch (s.type) {
        case CACHE_F32: reinterpret_cast<float *>(out)[i] = x; break;
        case CACHE_F16: reinterpret_cast<uint16_t *>(out)[i] = float_to_half(x); break;
        case CACHE_BF16: reinterpret_cast<uint16_t *>(out)[i] = float_to_bf16(x); break;
        case CACHE_Q8_0: store_q8_0(out + block_bytes(CACHE_Q8_0) * (i / 32), x); break;
        default: store_levels(out + block_bytes(s.type) * (i / 32), s.type, x);
        }
    }
}
