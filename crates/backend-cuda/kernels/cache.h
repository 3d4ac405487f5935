// Cells of a KV cache (`backend::KvCache`): head h of cell c is row h * capacity + c.
#pragma once
#include "device.h"

// ggml's numbers of the types that a cache may have.
enum { CACHE_F32 = 0, CACHE_F16 = 1, CACHE_Q8_0 = 8, CACHE_BF16 = 30 };

/// One of K and V.
struct Stream {
    uint8_t *cells;
    int64_t row_bytes;
    int32_t type, dim;
};

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
    default: {
        const uint32_t both = load<uint32_t>(cell + 4 * i);
        const uint16_t low = uint16_t(both), high = uint16_t(both >> 16);
        x = type == CACHE_F16 ? half_to_float(low) : bf16_to_float(low);
        y = type == CACHE_F16 ? half_to_float(high) : bf16_to_float(high);
    }
    }
}
