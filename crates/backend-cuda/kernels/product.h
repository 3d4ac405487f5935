// What matvec.cu and matmul.cu are given, the same for both.
#pragma once
#include "dot.h"
#include "halves.h"

/// Rows of the result that one block of matmul.cu computes, all of one expert, as many as its tile has at most.
struct Tile {
    int32_t first;    // in the list of rows
    int32_t count;    // 0: nothing
    int32_t expert;   // one that does not exist: results are NaN
};

struct ProductArgs {
    const uint8_t *weight;
    const void *input;       // Activations or f32, by the weight's type
    const float *bias;       // [rows] (with experts [experts, rows]) or null
    const float *scales;     // [experts] or null
    const uint32_t *ids;     // matvec: [n], the expert of each row of the result; null: there are no experts
    const Tile *tiles;       // matmul: of each block of y; null: there are no experts
    const uint32_t *order;   // with tiles: [n], the rows of the result, expert by expert
    const void *table;       // of the weights' type, where it has one
    float *out;              // [n, rows]
    int64_t row_bytes;
    int64_t expert_bytes;
    float scale;
    int32_t rows, cols, n;
    int32_t slots;           // rows of the result that share a row of the input
    int32_t experts;
};

/// A further matrix that meets the same activations, of the same type and with rows of the same length.
struct Further {
    const uint8_t *weight;
    const float *bias;       // [rows] or null
    float *out;              // [n, rows]
    float scale;
    int32_t rows;            // 0, of the last ones: there are no more
};

/// What matvec.cu is given: several matrices in one launch, the blocks of one after those of the other. Without experts.
struct VectorArgs : ProductArgs {
    Further further[2];
};

/// Whether rows of weights and of activations lie at multiples of 16 bytes. Matrices start at multiples of 32, so that further ones
/// do if the first does.
DEVICE bool wide_rows(const ProductArgs &a) {
    const uint64_t all = reinterpret_cast<uint64_t>(a.weight) | reinterpret_cast<uint64_t>(a.input) |
                         uint64_t(a.row_bytes) | uint64_t(a.expert_bytes) | 4 * uint64_t(a.cols);
    return all % 16 == 0;
}
