// Block layouts (formats: crates/quant/src/blocks.rs) as chunks of 32 weights: packed signed bytes, one scale for each half,
// and an offset for each half where the type has them. Weight i is `scale[i / 16] * (q[i] - ZERO) - offset[i / 16]`.
//
// A row starts at a multiple of its type's alignment: 2 bytes (1 for MXFP4), 4 or more where the block's size allows.
#pragma once
#include "device.h"

struct alignas(16) Scales {
    float scale[2];
    float offset[2];
};

struct Chunk : Scales {
    int q[8];
};

/// Subtracts c from four bytes below 128; c is the same byte four times, at most 128.
DEVICE int subtract4(uint32_t x, uint32_t c) { return int(((x | 0x80808080u) - c) ^ 0x80808080u); }

/// The low four bits of b, one in each byte.
DEVICE uint32_t spread4(uint32_t b) { return (b & 15) * 0x00204081u & 0x01010101u; }

/// Four entries of a table of 16 bytes, by the low nibble of each byte of `index`.
DEVICE int lookup4(const uint32_t (&table)[4], uint32_t index) {
    uint32_t select = index & 0x07070707u;
    select = (select | select >> 4) & 0x00ff00ffu;
    select = (select | select >> 8) & 0xffffu;
    uint32_t high = (index >> 3 & 0x01010101u) * 255;
    return int((permute(table[0], table[1], select) & ~high) | (permute(table[2], table[3], select) & high));
}

DEVICE void one_scale(Chunk &c, float scale) { c.scale[0] = c.scale[1] = scale; }
DEVICE void one_offset(Chunk &c, float offset) { c.offset[0] = c.offset[1] = offset; }

// The traits of a type: HALVES, whether the halves of a chunk have scales (and offsets) of their own; OFFSETS, whether there
// are offsets; LATTICE, whether weights are points of a table, which unpack takes then (lattices.h); ZERO, the q that stands
// for 0 (dot.h); unpack, which takes chunk `i` of a row.

struct Q4_0 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 8;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 18 * int64_t(i);
        one_scale(c, load_half(b));
        uint32_t x[4];
        load_words_at2(b + 2, x);
        for (int k = 0; k < 4; k++) {
            c.q[k] = int(x[k] & 0x0f0f0f0fu);
            c.q[k + 4] = int(x[k] >> 4 & 0x0f0f0f0fu);
        }
    }
};

struct Q4_1 {
    static const bool HALVES = false, OFFSETS = true, LATTICE = false;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 20 * int64_t(i);
        one_scale(c, load_half(b));
        one_offset(c, -load_half(b + 2));
        for (int k = 0; k < 4; k++) {
            uint32_t x = load<uint32_t>(b + 4 + 4 * k);
            c.q[k] = int(x & 0x0f0f0f0fu);
            c.q[k + 4] = int(x >> 4 & 0x0f0f0f0fu);
        }
    }
};

/// Five bits: the nibbles at `qs`, and bit j of `high` for element j.
DEVICE void five_bits(const uint8_t *qs, uint32_t high, uint32_t (&q)[8]) {
    uint32_t x[4];
    load_words_at2(qs, x);
    for (int k = 0; k < 4; k++) {
        q[k] = (x[k] & 0x0f0f0f0fu) | spread4(high >> 4 * k) << 4;
        q[k + 4] = (x[k] >> 4 & 0x0f0f0f0fu) | spread4(high >> (16 + 4 * k)) << 4;
    }
}

struct Q5_0 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 16;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 22 * int64_t(i);
        one_scale(c, load_half(b));
        uint32_t q[8];
        five_bits(b + 6, load32_at2(b + 2), q);
        for (int k = 0; k < 8; k++) c.q[k] = int(q[k]);
    }
};

struct Q5_1 {
    static const bool HALVES = false, OFFSETS = true, LATTICE = false;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 24 * int64_t(i);
        one_scale(c, load_half(b));
        one_offset(c, -load_half(b + 2));
        uint32_t q[8];
        five_bits(b + 8, load<uint32_t>(b + 4), q);
        for (int k = 0; k < 8; k++) c.q[k] = int(q[k]);
    }
};

struct Q8_0 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 34 * int64_t(i);
        one_scale(c, load_half(b));
        uint32_t x[8];
        load_words_at2(b + 2, x);
        for (int k = 0; k < 8; k++) c.q[k] = int(x[k]);
    }
};

struct IQ4_NL {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 0;
    /// Nibbles into the table of 16 values (`quant::unpack::IQ4_VALUES`).
    static DEVICE int value4(uint32_t index) {
        const uint32_t table[4] = {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u};
        return lookup4(table, index);
    }
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 18 * int64_t(i);
        one_scale(c, load_half(b));
        uint32_t x[4];
        load_words_at2(b + 2, x);
        for (int k = 0; k < 4; k++) {
            c.q[k] = value4(x[k] & 0x0f0f0f0fu);
            c.q[k + 4] = value4(x[k] >> 4 & 0x0f0f0f0fu);
        }
    }
};

struct MXFP4 {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 0;
    /// Twice the values of E2M1 (`quant::unpack::FP4_VALUES`).
    static DEVICE int value4(uint32_t index) {
        const uint32_t table[4] = {0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu};
        return lookup4(table, index);
    }
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 17 * int64_t(i);
        // Half of an E8M0 scale, because the table holds twice the values of E2M1.
        uint32_t e = load<uint8_t>(b);
        one_scale(c, bits_to_float(e < 2 ? 0x00200000u << e : (e - 1) << 23));
        uint32_t x[4];
        load_words_at1(b + 1, x);
        for (int k = 0; k < 4; k++) {
            c.q[k] = value4(x[k] & 0x0f0f0f0fu);
            c.q[k + 4] = value4(x[k] >> 4 & 0x0f0f0f0fu);
        }
    }
};

struct NVFP4 {
    static const bool HALVES = true, OFFSETS = false, LATTICE = false;
    static const int ZERO = 0;
    /// Half of an unsigned E4M3 scale, times 1024 (`quant::unpack::ue4m3_half`).
    static DEVICE int units(int e4m3) {
        int exponent = e4m3 >> 3 & 15, mantissa = e4m3 & 7;
        return e4m3 == 127 ? 0 : exponent == 0 ? mantissa : (8 + mantissa) << (exponent - 1);
    }
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 36 * int64_t(i / 2);
        for (int h = 0; h < 2; h++) {
            int g = i % 2 * 2 + h;
            c.scale[h] = 1.0f / 1024.0f * float(units(load<uint8_t>(b + g)));
            for (int k = 0; k < 2; k++) {
                uint32_t x = load<uint32_t>(b + 4 + 8 * g + 4 * k);
                c.q[4 * h + k] = MXFP4::value4(x & 0x0f0f0f0fu);
                c.q[4 * h + k + 2] = MXFP4::value4(x >> 4 & 0x0f0f0f0fu);
            }
        }
    }
};

/// Scale and offset of group `j` (0..8) from the first 16 bytes of a block of Q4_K or Q5_K: both f16 factors, then 6 bits
/// for each.
DEVICE void scale_offset(const uint8_t *block, int j, Chunk &c) {
    uint32_t words[4];
    load_words(block, words);
    int shift = 8 * (j & 3);
    uint32_t s = words[1] >> shift & 255, m = words[2] >> shift & 255, h = words[3] >> shift & 255;
    uint32_t scale = j < 4 ? s & 63 : (h & 15) | s >> 6 << 4, offset = j < 4 ? m & 63 : h >> 4 | m >> 6 << 4;
    one_scale(c, half_to_float(uint16_t(words[0])) * float(scale));
    one_offset(c, half_to_float(uint16_t(words[0] >> 16)) * float(offset));
}

struct Q4_K {
    static const bool HALVES = false, OFFSETS = true, LATTICE = false;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 144 * int64_t(i / 8);
        int j = i % 8;
        scale_offset(b, j, c);
        for (int k = 0; k < 8; k += 4) {
            uint32_t low[4];
            load_words(b + 16 + 32 * (j / 2) + 4 * k, low);
            for (int l = 0; l < 4; l++) c.q[k + l] = int(low[l] >> 4 * (j & 1) & 0x0f0f0f0fu);
        }
    }
};

struct Q5_K {
    static const bool HALVES = false, OFFSETS = true, LATTICE = false;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 176 * int64_t(i / 8);
        int j = i % 8;
        scale_offset(b, j, c);
        for (int k = 0; k < 8; k += 4) {
            uint32_t low[4], high[4];
            load_words(b + 48 + 32 * (j / 2) + 4 * k, low);
            load_words(b + 16 + 4 * k, high);
            for (int l = 0; l < 4; l++)
                c.q[k + l] = int((low[l] >> 4 * (j & 1) & 0x0f0f0f0fu) | (high[l] >> j & 0x01010101u) << 4);
        }
    }
};

struct Q6_K {
    static const bool HALVES = true, OFFSETS = false, LATTICE = false;
    static const int ZERO = 32;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 210 * int64_t(i / 8);
        int j = i % 8;
        // Group s of a half: bytes 0..32 or 32..64 of its low bits, low nibbles for s < 2, high ones after that.
        int half = j / 4, s = j % 4;
        float d = load_half(b + 208);
        for (int h = 0; h < 2; h++) c.scale[h] = d * float(load<int8_t>(b + 192 + 2 * j + h));
        uint32_t low[8], high[8];
        load_words_at2(b + 64 * half + 32 * (s & 1), low);
        load_words_at2(b + 128 + 32 * half, high);
        for (int k = 0; k < 8; k++) {
            uint32_t l = low[k] >> 4 * (s / 2) & 0x0f0f0f0fu;
            uint32_t h = high[k] >> 2 * s & 0x03030303u;
            c.q[k] = int(l | h << 4);
        }
    }
};

struct Q3_K {
    static const bool HALVES = true, OFFSETS = false, LATTICE = false;
    static const int ZERO = 4;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 110 * int64_t(i / 8);
        int j = i % 8;
        float d = load_half(b + 108);
        for (int h = 0; h < 2; h++) {
            int g = 2 * j + h;
            int low = load<uint8_t>(b + 96 + g % 8) >> 4 * (g / 8) & 15;
            int high = load<uint8_t>(b + 104 + g % 4) >> 2 * (g / 4) & 3;
            c.scale[h] = d * float((low | high << 4) - 32);
        }
        uint32_t low[8], high[8];
        load_words_at2(b + 32 + 32 * (j / 4), low);
        load_words_at2(b, high);
        for (int k = 0; k < 8; k++) {
            uint32_t l = low[k] >> 2 * (j % 4) & 0x03030303u, h = high[k] >> j & 0x01010101u;
            c.q[k] = int(l | h << 2);
        }
    }
};

struct Q2_K {
    static const bool HALVES = true, OFFSETS = true, LATTICE = false;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 84 * int64_t(i / 8);
        int j = i % 8;
        float d = load_half(b + 80), dmin = load_half(b + 82);
        for (int h = 0; h < 2; h++) {
            int packed = load<uint8_t>(b + 2 * j + h);
            c.scale[h] = d * float(packed & 15);
            c.offset[h] = dmin * float(packed >> 4);
        }
        const uint8_t *qs = b + 16 + 32 * (j / 4);
        for (int k = 0; k < 8; k++) c.q[k] = int(load<uint32_t>(qs + 4 * k) >> 2 * (j % 4) & 0x03030303u);
    }
};

struct IQ4_XS {
    static const bool HALVES = false, OFFSETS = false, LATTICE = false;
    static const int ZERO = 0;
    static DEVICE void unpack(const uint8_t *row, int i, Chunk &c) {
        const uint8_t *b = row + 136 * int64_t(i / 8);
        int j = i % 8;
        // Factor, high bits of all scales, their low bits.
        uint32_t head[2];
        load_words(b, head);
        int low = head[1] >> 4 * j & 15, high = head[0] >> 16 >> 2 * j & 3;
        one_scale(c, half_to_float(uint16_t(head[0])) * float((low | high << 4) - 32));
        for (int k = 0; k < 4; k += 2) {
            uint32_t x[2];
            load_words(b + 8 + 16 * j + 4 * k, x);
            for (int l = 0; l < 2; l++) {
                c.q[k + l] = IQ4_NL::value4(x[l] & 0x0f0f0f0fu);
                c.q[k + l + 4] = IQ4_NL::value4(x[l] >> 4 & 0x0f0f0f0fu);
            }
        }
    }
};

// Types whose weights are numbers already: one value of a row, or eight that lie at a multiple of 16 bytes.
struct F32 {
    static DEVICE float value(const uint8_t *row, int i) { return load<float>(row + 4 * int64_t(i)); }
    static DEVICE void eight(const uint8_t *row, int step, float (&w)[8]) {
        for (int half = 0; half < 2; half++) {
            uint32_t words[4];
            load_words(row + 32 * int64_t(step) + 16 * half, words);
            for (int k = 0; k < 4; k++) w[4 * half + k] = bits_to_float(words[k]);
        }
    }
};
struct F16 {
    static DEVICE float value(const uint8_t *row, int i) { return load_half(row + 2 * int64_t(i)); }
    static DEVICE void eight(const uint8_t *row, int step, float (&w)[8]) {
        uint32_t words[4];
        load_words(row + 16 * int64_t(step), words);
        for (int k = 0; k < 8; k++) w[k] = half_to_float(uint16_t(words[k / 2] >> 16 * (k % 2)));
    }
};
struct BF16 {
    static DEVICE float value(const uint8_t *row, int i) { return bf16_to_float(load<uint16_t>(row + 2 * int64_t(i))); }
    static DEVICE void eight(const uint8_t *row, int step, float (&w)[8]) {
        uint32_t words[4];
        load_words(row + 16 * int64_t(step), words);
        for (int k = 0; k < 8; k++) w[k] = bf16_to_float(uint16_t(words[k / 2] >> 16 * (k % 2)));
    }
};
