// Numbers as sums of halves (f16, and from compute capability 8.0 on bf16), which tensor cores multiply: products are exact, sums
// are in f32. An f32 is two halves of f16 (22 bits, scaled into their range) or three of bf16 (all 24).
#pragma once
#include "blocks.h"

#if __CUDA_ARCH__ >= 750
/// A power of two and its inverse.
struct Unit {
    float up, down;
};

/// What brings the largest of some numbers, of which `largest` are the bits, between 2^14 and 2^15: those of 2^-29 of it
/// still keep all bits of two halves.
DEVICE Unit unit(uint32_t largest) {
    const uint32_t exponent = largest >> 23 & 255, e = exponent < 15 ? 15 : exponent > 254 ? 254 : exponent;
    return {bits_to_float((268 - e) << 23), bits_to_float((e - 14) << 23)};
}

DEVICE uint32_t pair(uint16_t low, uint16_t high) { return uint32_t(low) | uint32_t(high) << 16; }

/// x and y as f16, and what is missing of them.
DEVICE void halve(float x, float y, uint32_t &high, uint32_t &low) {
    const uint16_t hx = float_to_half(x), hy = float_to_half(y);
    high = pair(hx, hy);
    low = pair(float_to_half(x - half_to_float(hx)), float_to_half(y - half_to_float(hy)));
}

/// How weights of a type meet activations: their parts, 8 of a lane, of 32 of a group of four lanes.
template <class Type> struct Halves;

template <> struct Halves<F16> {
    static const int PARTS = 2;
    static const bool SCALED = true;
    /// Gives the inverse of what they were scaled by.
    static DEVICE float split(const float (&x)[8], uint32_t (&parts)[PARTS][4]) {
        uint32_t largest = 0;
        for (int i = 0; i < 8; i++) {
            const uint32_t magnitude = float_to_bits(x[i]) & 0x7fffffff;
            largest = magnitude > largest ? magnitude : largest;
        }
        for (int step = 2; step > 0; step /= 2) {
            const uint32_t other = __shfl_xor_sync(ALL_LANES, largest, step);
            largest = other > largest ? other : largest;
        }
        const Unit u = unit(largest);
        for (int i = 0; i < 4; i++) halve(x[2 * i] * u.up, x[2 * i + 1] * u.up, parts[0][i], parts[1][i]);
        return u.down;
    }
    static DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_f16(c, a, b); }
};

#if __CUDA_ARCH__ >= 800
template <> struct Halves<BF16> {
    static const int PARTS = 3;
    static const bool SCALED = false;
    static DEVICE float split(const float (&x)[8], uint32_t (&parts)[PARTS][4]) {
        float rest[8];
        for (int i = 0; i < 8; i++) rest[i] = x[i];
        for (int part = 0; part < PARTS; part++)
            for (int i = 0; i < 4; i++) {
                const uint16_t low = float_to_bf16(rest[2 * i]), high = float_to_bf16(rest[2 * i + 1]);
                parts[part][i] = pair(low, high);
                rest[2 * i] -= bf16_to_float(low);
                rest[2 * i + 1] -= bf16_to_float(high);
            }
        return 1;
    }
    static DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_bf16(c, a, b); }
};
#endif

/// Eight weights from `at` on, in words; zeros past the end.
DEVICE void load_eight(const uint8_t *row, int at, int cols, bool wide, uint32_t (&w)[4]) {
    for (int i = 0; i < 4; i++) w[i] = 0;
    if (wide) {
        if (at < cols) load_words(row + 2 * int64_t(at), w);
        return;
    }
    for (int i = 0; i < 8; i++)
        if (at + i < cols) w[i / 2] |= uint32_t(load<uint16_t>(row + 2 * int64_t(at + i))) << 16 * (i % 2);
}

/// Eight activations of a row; of row -1 they are zeros.
DEVICE void load_eight(const float *input, int row_index, int at, int cols, bool wide, float (&x)[8]) {
    for (int i = 0; i < 8; i++) x[i] = 0;
    if (row_index < 0) return;
    const float *row = input + int64_t(row_index) * cols;
    if (wide) {
        if (at >= cols) return;
        uint32_t words[4];
        for (int half = 0; half < 2; half++) {
            load_words(reinterpret_cast<const uint8_t *>(row + at + 4 * half), words);
            for (int i = 0; i < 4; i++) x[4 * half + i] = bits_to_float(words[i]);
        }
        return;
    }
    for (int i = 0; i < 8; i++)
        if (at + i < cols) x[i] = load<float>(row + at + i);
}

/// Steps of a row: 32 values.
DEVICE int half_steps(int cols) { return (cols + 31) / 32; }

/// Where rows lie.
struct HalfRows {
    const uint8_t *weights;
    int64_t row_bytes;
    const float *input;
    int cols;
};

/// Adds a step of M times 16 rows of weights with N times 8 rows of activations. A lane 4g + k gives rows g, g + 8, ... of
/// weights and of activations, of which it reads 8 values from 8k on: which of them meet in which product is all the same.
/// Results [M][N][4] are as `mma_f16` has them. `inputs` may be -1. `wide`: rows lie at multiples of 16 bytes.
template <class Type, int M, int N>
DEVICE void add_halves(const HalfRows &from, const int (&rows)[2 * M], const int (&inputs)[N], bool wide, int step,
                       float (&sum)[4 * M * N]) {
    typedef Halves<Type> H;
    const int at = 32 * step + 8 * (lane() % 4), cols = from.cols;
    uint32_t w[2 * M][4];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) load_eight(from.weights + rows[i] * from.row_bytes, at, cols, wide, w[i]);
    float x[8], next[8];
    load_eight(from.input, inputs[0], at, cols, wide, next);
#pragma unroll
    for (int n = 0; n < N; n++) {
        for (int i = 0; i < 8; i++) x[i] = next[i];
        // They arrive while these are multiplied.
        if (n + 1 < N) load_eight(from.input, inputs[n + 1], at, cols, wide, next);
        uint32_t parts[H::PARTS][4];
        const float down = H::split(x, parts);
        // A lane's results are those of rows 2k and 2k + 1 of activations.
        float downs[2] = {1, 1};
        if (H::SCALED)
            for (int i = 0; i < 2; i++) downs[i] = __shfl_sync(ALL_LANES, down, (2 * (lane() % 4) + i) * 4);
#pragma unroll
        for (int m = 0; m < M; m++) {
            float t[4] = {0, 0, 0, 0};
            // The smallest first.
#pragma unroll
            for (int part = H::PARTS - 1; part >= 0; part--)
#pragma unroll
                for (int h = 0; h < 4; h += 2) {
                    const uint32_t a[4] = {w[2 * m][h], w[2 * m + 1][h], w[2 * m][h + 1], w[2 * m + 1][h + 1]};
                    const uint32_t b[2] = {parts[part][h], parts[part][h + 1]};
                    H::multiply(t, a, b);
                }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float &s = sum[4 * (m * N + n) + i];
                s = H::SCALED ? fmaf(t[i], downs[i % 2], s) : s + t[i];
            }
        }
    }
}
#endif
