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

/// What values 2i and 2i + 1 of a cell are made of, two words.
struct Raw {
    uint32_t x, y;
};

/// Where they lie in a cell: pieces of 16 bits, two for each word.
struct Pieces {
    int at[4];
    bool four;   // or two
    DEVICE Pieces(int type, int i) {
        const int in_block = 2 * (i % 16), head = has_offset(type) ? 4 : 2;
        four = type == CACHE_F32 || has_offset(type) || has_fifth(type);
        const int block = block_bytes(type) * (i / 16), levels = block + head + (has_fifth(type) ? 4 : 0) + in_block % 16;
        // Factor, offset or levels; fifth bits, levels.
        at[0] = block;
        at[1] = type == CACHE_Q8_0 ? block + 2 + in_block : has_offset(type) ? block + 2 : levels;
        at[2] = block + head + in_block / 16 * 2;
        at[3] = levels;
        if (type == CACHE_F32 || type == CACHE_F16 || type == CACHE_BF16)
            for (int k = 0; k < 4; k++) at[k] = (type == CACHE_F32 ? 8 : 4) * i + 2 * k;
    }
};

/// The values themselves.
DEVICE void decode_pair(int type, const Raw &raw, int i, float &x, float &y) {
    switch (type) {
    case CACHE_F32:
        x = bits_to_float(raw.x);
        y = bits_to_float(raw.y);
        return;
    case CACHE_F16:
        x = half_to_float(uint16_t(raw.x));
        y = half_to_float(uint16_t(raw.x >> 16));
        return;
    case CACHE_BF16:
        x = bf16_to_float(uint16_t(raw.x));
        y = bf16_to_float(uint16_t(raw.x >> 16));
        return;
    }
    const float d = half_to_float(uint16_t(raw.x));
    if (type == CACHE_Q8_0) {
        x = d * float(int8_t(raw.x >> 16 & 255));
        y = d * float(int8_t(raw.x >> 24));
        return;
    }
    const int at = 2 * (i % 16);
    const uint32_t levels = (has_offset(type) ? raw.y : raw.x) >> (at < 16 ? 16 : 20);
    const uint32_t fifth = has_fifth(type) ? raw.y >> at % 16 : 0;
    const int p = int((levels & 15) | (fifth & 1) << 4), q = int((levels >> 8 & 15) | (fifth >> 1 & 1) << 4);
    if (has_offset(type)) {
        const float m = half_to_float(uint16_t(raw.x >> 16));
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
    const Pieces pieces(type, i);
    uint32_t piece[4] = {load16(cell + pieces.at[0]), load16(cell + pieces.at[1]), 0, 0};
    if (pieces.four)
        for (int k = 2; k < 4; k++) piece[k] = load16(cell + pieces.at[k]);
    decode_pair(type, {piece[0] | piece[1] << 16, piece[2] | piece[3] << 16}, i, x, y);
}
