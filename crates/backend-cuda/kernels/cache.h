// Cells of a KV cache (`backend::KvCache`): head h of cell c is row h * capacity + c.
#pragma once
#include "device.h"

// ggml's numbers of the types that a cache may have.
enum {
    CACHE_F32 = 0,
    CACHE_F16 = 1,
    CACHE_Q4_0 = 2,
    CACHE_Q4_1 = 3,
    CACHE_Q5_0 = 6,
    CACHE_Q5_1 = 7,
    CACHE_Q8_0 = 8,
    CACHE_IQ4_NL = 20,
    CACHE_BF16 = 30
};

/// One of K and V.
struct Stream {
    uint8_t *cells;
    int64_t row_bytes;
    int32_t type, dim;
};

/// Bytes of a block of 32 values of a type that has such blocks.
DEVICE int block_bytes(int type) {
    switch (type) {
    case CACHE_Q4_1: return 20;
    case CACHE_Q5_0: return 22;
    case CACHE_Q5_1: return 24;
    case CACHE_Q8_0: return 34;
    default: return 18;   // q4_0 and iq4_nl
    }
}

/// Whether blocks of a type have an offset after the scale; whether four bytes of fifth bits come next.
DEVICE bool has_offset(int type) { return type == CACHE_Q4_1 || type == CACHE_Q5_1; }
DEVICE bool has_fifth(int type) { return type == CACHE_Q5_0 || type == CACHE_Q5_1; }

/// The value that a nibble stands for in iq4_nl (`quant::unpack::IQ4_VALUES`).
DEVICE int iq4_value(int level) {
    const uint32_t low = level & 4 ? 0xf6eaddcfu : 0xbfad9881u, high = level & 4 ? 0x71594535u : 0x26190d01u;
    return int8_t((level & 8 ? high : low) >> 8 * (level & 3) & 255);
}

/// Values 2i and 2i + 1 of a cell in a type whose levels have four or five bits.
DEVICE void load_levels(const uint8_t *cell, int type, int i, float &x, float &y) {
    const uint8_t *block = cell + block_bytes(type) * (i / 16);
    const int at = 2 * (i % 16);
    const float d = load_half(block);
    const uint8_t *next = block + (has_offset(type) ? 4 : 2);
    int p = 0, q = 0;
    if (has_fifth(type)) {
        const uint32_t fifth = load32_at2(next) >> at;
        p = int(fifth & 1) << 4;
        q = int(fifth >> 1 & 1) << 4;
        next += 4;
    }
    const int both = load<uint16_t>(next + at % 16) >> (at < 16 ? 0 : 4);
    p |= both & 15;
    q |= both >> 8 & 15;
    if (has_offset(type)) {
        const float m = load_half(block + 2);
        x = d * float(p) + m;
        y = d * float(q) + m;
        return;
    }
    const int zero = type == CACHE_Q5_0 ? 16 : 8;
    x = d * float(type == CACHE_IQ4_NL ? iq4_value(p) : p - zero);
    y = d * float(type == CACHE_IQ4_NL ? iq4_value(q) : q - zero);
}

/// Values 2i and 2i + 1 of a cell.
DEVICE void load_pair(const uint8_t *cell, int type, int i, float &x, float &y) {
    switch (type) {
    case CACHE_F32:
        x = load<float>(cell + 8 * i);
        y = load<float>(cell + 8 * i + 4);
        break;
    case CACHE_Q8_0: {
        const uint8_t *block = cell + 34 * (i / 16);
        const float d = load_half(block);
        const uint32_t q = load<uint16_t>(block + 2 + 2 * (i % 16));
        x = d * float(int8_t(q & 255));
        y = d * float(int8_t(q >> 8));
        break;
    }
    case CACHE_F16:
    case CACHE_BF16: {
        const uint32_t both = load<uint32_t>(cell + 4 * i);
        const uint16_t low = uint16_t(both), high = uint16_t(both >> 16);
        x = type == CACHE_F16 ? half_to_float(low) : bf16_to_float(low);
        y = type == CACHE_F16 ? half_to_float(high) : bf16_to_float(high);
        break;
    }
    default: load_levels(cell, type, i, x, y);
    }
}
