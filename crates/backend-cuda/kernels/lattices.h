// Weights that are points of a lattice: an index into a table of points, which the device brings (`quant::unpack`), and
// signs beside it. Points are 8 bytes of the tables of IQ1 and IQ2, 4 bytes of those of IQ3.
#pragma once
#include "blocks.h"

/// Eight signs from the seven that are stored: the number of negative values is even.
DEVICE uint32_t even_signs(uint32_t stored) {
    stored &= 127;
    return stored | (0x6996u >> ((stored ^ stored >> 4) & 15) & 1) << 7;
}

/// Four magnitudes, none of them 0, negated where one of the low four bits of `signs` says so.
DEVICE int negate4(uint32_t magnitudes, uint32_t signs) {
    const uint32_t ones = spread4(signs);
    return int((magnitudes ^ ones * 255) + ones);
}

/// Point `index` of a table of eight magnitudes each.
DEVICE void point8(const void *table, int index, uint32_t signs, int *q) {
    const uint64_t point = load<uint64_t>(static_cast<const uint64_t *>(table) + index);
    q[0] = negate4(uint32_t(point), signs);
    q[1] = negate4(uint32_t(point >> 32), signs >> 4);
}

/// Point `index` of a table of four magnitudes each.
DEVICE int point4(const void *table, int index, uint32_t signs) {
    return negate4(load<uint32_t>(static_cast<const uint32_t *>(table) + index), signs);
}

/// A stored scale s stands for s + 1/2: twice that.
DEVICE float odd(uint32_t scale) { return float(2 * scale + 1); }

struct IQ2_XXS {
    static const bool HALVES = false, OFFSETS = false, LATTICE = true;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, const void *table, Chunk &c) {
        const uint8_t *b = row + 66 * int64_t(i / 8), *qs = b + 2 + 8 * (i % 8);
        // Four points, then their signs and a scale.
        uint32_t x[2];
        load_words_at2(qs, x);
        one_scale(c, load_half(b) * 0.125f * odd(x[1] >> 28));
        for (int k = 0; k < 4; k++) point8(table, x[0] >> 8 * k & 255, even_signs(x[1] >> 7 * k), c.q + 2 * k);
    }
};

struct IQ2_XS {
    static const bool HALVES = true, OFFSETS = false, LATTICE = true;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, const void *table, Chunk &c) {
        const uint8_t *b = row + 74 * int64_t(i / 8), *qs = b + 2 + 8 * (i % 8);
        const float d = load_half(b) * 0.125f;
        const uint32_t scales = load<uint8_t>(b + 66 + i % 8);
        for (int h = 0; h < 2; h++) c.scale[h] = d * odd(scales >> 4 * h & 15);
        uint32_t x[2];
        load_words_at2(qs, x);
        for (int k = 0; k < 4; k++) {
            const uint32_t point = x[k / 2] >> 16 * (k % 2) & 0xffff;
            point8(table, point & 511, even_signs(point >> 9), c.q + 2 * k);
        }
    }
};

struct IQ2_S {
    static const bool HALVES = true, OFFSETS = false, LATTICE = true;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, const void *table, Chunk &c) {
        const uint8_t *b = row + 82 * int64_t(i / 8), *qs = b + 2 + 4 * (i % 8);
        const float d = load_half(b) * 0.125f;
        const uint32_t scales = load<uint8_t>(b + 74 + i % 8), high = load<uint8_t>(b + 66 + i % 8);
        for (int h = 0; h < 2; h++) c.scale[h] = d * odd(scales >> 4 * h & 15);
        const uint32_t low = load32_at2(qs), signs = load32_at2(qs + 32);
        for (int k = 0; k < 4; k++) {
            const int index = int((low >> 8 * k & 255) | (high >> 2 * k & 3) << 8);
            point8(table, index, signs >> 8 * k, c.q + 2 * k);
        }
    }
};

struct IQ3_XXS {
    static const bool HALVES = false, OFFSETS = false, LATTICE = true;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, const void *table, Chunk &c) {
        const uint8_t *b = row + 98 * int64_t(i / 8), *qs = b + 2 + 8 * (i % 8);
        const uint32_t tail = load32_at2(b + 66 + 4 * (i % 8));
        one_scale(c, load_half(b) * 0.25f * odd(tail >> 28));
        uint32_t x[2];
        load_words_at2(qs, x);
        for (int k = 0; k < 8; k++)
            c.q[k] = point4(table, x[k / 4] >> 8 * (k % 4) & 255, even_signs(tail >> 7 * (k / 2)) >> 4 * (k % 2));
    }
};

struct IQ3_S {
    static const bool HALVES = false, OFFSETS = false, LATTICE = true;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, const void *table, Chunk &c) {
        const int j = i % 8;
        const uint8_t *b = row + 110 * int64_t(i / 8), *qs = b + 2 + 8 * j;
        const uint32_t high = load<uint8_t>(b + 66 + j), signs = load32_at2(b + 74 + 4 * j);
        one_scale(c, load_half(b) * odd(load<uint8_t>(b + 106 + j / 2) >> 4 * (j % 2) & 15));
        uint32_t x[2];
        load_words_at2(qs, x);
        for (int k = 0; k < 8; k++)
            c.q[k] = point4(table, int((x[k / 4] >> 8 * (k % 4) & 255) | (high >> k & 1) << 8), signs >> 4 * k);
    }
};

/// A point of IQ1's table, whose values are -1, 0 and 1: `8 value + 1` or `8 value - 1`, which are eighths.
DEVICE void eighths(const void *table, int index, bool negative, int *q) {
    const uint64_t point = load<uint64_t>(static_cast<const uint64_t *>(table) + index);
    const uint32_t zero = negative ? 0x09090909u : 0x07070707u;
    for (int k = 0; k < 2; k++) {
        const uint32_t from_0 = ((uint32_t(point >> 32 * k) & 0x03030303u) + 0x01010101u) & 0x03030303u;
        q[k] = subtract4(from_0 << 3, zero);
    }
}

struct IQ1_S {
    static const bool HALVES = false, OFFSETS = false, LATTICE = true;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, const void *table, Chunk &c) {
        const uint8_t *b = row + 50 * int64_t(i / 8);
        const uint32_t qs = load32_at2(b + 2 + 4 * (i % 8)), qh = load<uint16_t>(b + 34 + 2 * (i % 8));
        one_scale(c, load_half(b) * 0.125f * odd(qh >> 12 & 7));
        for (int k = 0; k < 4; k++)
            eighths(table, int((qs >> 8 * k & 255) | (qh >> 3 * k & 7) << 8), qh >> 15, c.q + 2 * k);
    }
};

struct IQ1_M {
    static const bool HALVES = true, OFFSETS = false, LATTICE = true;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, const void *table, Chunk &c) {
        const int j = i % 8;
        const uint8_t *b = row + 56 * int64_t(i / 8);
        // The top nibbles of four words are the scale of the block.
        uint32_t bits = 0;
        for (int k = 0; k < 4; k++) bits |= (load<uint16_t>(b + 48 + 2 * k) & 0xf000u) >> 4 * (3 - k);
        const float d = half_to_float(uint16_t(bits)) * 0.125f;
        const uint32_t scales = load<uint16_t>(b + 48 + 2 * (j / 2)) >> 6 * (j % 2);
        for (int h = 0; h < 2; h++) c.scale[h] = d * odd(scales >> 3 * h & 7);
        const uint32_t qs = load<uint32_t>(b + 4 * j), qh = load<uint16_t>(b + 32 + 2 * j);
        for (int k = 0; k < 4; k++) {
            const uint32_t high = qh >> 4 * k & 15;
            eighths(table, int((qs >> 8 * k & 255) | (high & 7) << 8), high >> 3, c.q + 2 * k);
        }
    }
};
