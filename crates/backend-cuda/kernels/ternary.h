// Weights of one or two bits, one scale for all of a block (blocks.h says what a type has).
#pragma once
#include "blocks.h"

/// Digit `n` (0..5) of each of four bytes that hold five base-3 digits as a fraction, the most significant first.
DEVICE uint32_t digit4(uint32_t bytes, int n) {
    const uint32_t power = uint32_t(0x511b090301ull >> 8 * n) & 255;
    const uint32_t even = (bytes & 0x00ff00ffu) * power & 0x00ff00ffu;
    const uint32_t odd = (bytes >> 8 & 0x00ff00ffu) * power & 0x00ff00ffu;
    return (even * 3 >> 8 & 0x00ff00ffu) | (odd * 3 & 0xff00ff00u);
}

struct TQ1_0 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 1;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 54 * int64_t(i / 8);
        const int j = i % 8;
        one_scale(c, load_half(b + 52));
        for (int k = 0; k < 8; k++) {
            // The first 160 values are digits of 32 bytes, the next 80 of 16 bytes, the last 16 of 4.
            const int later = 8 * (j - 5) + k;
            const int at = j < 5 ? 4 * k : later < 20 ? 32 + 4 * (later % 4) : 48;
            const int digit = j < 5 ? j : later < 20 ? later / 4 : later - 20;
            c.q[k] = int(digit4(load32_at2(b + at), digit));
        }
    }
};

struct TQ2_0 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 1;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 66 * int64_t(i / 8);
        const int j = i % 8;
        one_scale(c, load_half(b + 64));
        uint32_t x[8];
        load_words_at2(b + 32 * (j / 4), x);
        for (int k = 0; k < 8; k++) c.q[k] = int(x[k] >> 2 * (j % 4) & 0x03030303u);
    }
};

struct Q1_0 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 1;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 18 * int64_t(i / 4);
        one_scale(c, load_half(b));
        const uint32_t bits = load32_at2(b + 2 + 4 * (i % 4));
        for (int k = 0; k < 8; k++) c.q[k] = int(spread4(bits >> 4 * k) << 1);
    }
};

struct Q2_0 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 1;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 18 * int64_t(i / 2);
        one_scale(c, load_half(b));
        for (int k = 0; k < 8; k++) {
            uint32_t x = load<uint8_t>(b + 2 + 8 * (i % 2) + k);
            x = (x | x << 12) & 0x000f000fu;
            c.q[k] = int((x | x << 6) & 0x03030303u);
        }
    }
};
