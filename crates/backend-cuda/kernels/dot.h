// The one order in which a row of weights meets a row of activations, shared by all products, so that a result does not
// depend on how many rows are computed together: step s of a row goes to partial sum s % PARTS, steps of a part in order;
// the parts are added as a tree (`warp_sum<PARTS>`, `sum_parts`).
#pragma once
#include "lattices.h"
#include "ternary.h"

const int PARTS = 8;

/// How 32 activations were rounded to 8 bits, as `d * q`: with the sums of both halves of q.
struct alignas(8) Rounding {
    float d;
    int16_t sums[2];
};

/// 40 bytes.
struct Activations : Rounding {
    int q[8];
};

/// Packed weights with rounded activations: a step is 32 values, multiplied in exact integers. Weights that are stored with
/// ZERO added come to be centered, where many activations meet them; or they stay as they are, and what ZERO makes of each product
/// is taken from their sum. Both are the same integers.
template <class Type, bool CENTERED = true> struct PackedDot {
    // Steps that a lane of matvec.cu loads together: as many as registers hold.
    static const int DEPTH = 4;
    typedef Chunk Left;
    typedef Activations Right;
    static DEVICE int steps(int cols) { return cols / 32; }
    static DEVICE void left(const uint8_t *row, int step, int, const void *table, Left &w) {
        if constexpr (Type::LATTICE) Type::unpack(row, step, table, w);
        else Type::unpack(row, step, w);
        if (CENTERED && Type::ZERO)
            for (int k = 0; k < 8; k++) w.q[k] = subtract4(uint32_t(w.q[k]), Type::ZERO * 0x01010101u);
    }
    static DEVICE void right(const void *input, int64_t row, int step, int cols, Right &x) {
        const uint8_t *p = static_cast<const uint8_t *>(input) + (row * (cols / 32) + step) * int64_t(sizeof(Activations));
        // 40 bytes are 5 words of 8.
        uint64_t *to = reinterpret_cast<uint64_t *>(&x);
        for (int k = 0; k < 5; k++) to[k] = load<uint64_t>(p + 8 * k);
    }
    static DEVICE float add(const Left &w, const Right &x, float sum) {
        int first = 0, second = 0;
        for (int k = 0; k < 4; k++) first = dp4a(w.q[k], x.q[k], first);
        if (Type::HALVES) {
            for (int k = 4; k < 8; k++) second = dp4a(w.q[k], x.q[k], second);
        } else {
            for (int k = 4; k < 8; k++) first = dp4a(w.q[k], x.q[k], first);
        }
        if (!CENTERED && Type::ZERO) {
            first -= Type::ZERO * (Type::HALVES ? x.sums[0] : x.sums[0] + x.sums[1]);
            second -= Type::ZERO * x.sums[1];
        }
        return scaled(w, x, first, second, sum);
    }
    /// Adds a step whose integer products are known: of both halves, or `first` of all where the halves are alike.
    static DEVICE float scaled(const Scales &w, const Rounding &x, int first, int second, float sum) {
        if (Type::HALVES) {
            sum = fmaf(w.scale[0] * x.d, float(first), sum);
            sum = fmaf(w.scale[1] * x.d, float(second), sum);
            if (Type::OFFSETS) {
                sum = fmaf(-(w.offset[0] * x.d), float(x.sums[0]), sum);
                sum = fmaf(-(w.offset[1] * x.d), float(x.sums[1]), sum);
            }
        } else {
            sum = fmaf(w.scale[0] * x.d, float(first), sum);
            if (Type::OFFSETS) sum = fmaf(-(w.offset[0] * x.d), float(x.sums[0] + x.sums[1]), sum);
        }
        return sum;
    }
};

/// Weights that are numbers with f32 activations: a step is 8 values. WIDE: rows of both have whole steps, at multiples of 16 bytes.
template <class Type, bool WIDE = false> struct FloatDot {
    static const int DEPTH = WIDE ? 4 : 2;
    struct Left {
        float w[8];
    };
    struct Right {
        float x[8];
    };
    static DEVICE int steps(int cols) { return (cols + 7) / 8; }
    static DEVICE void left(const uint8_t *row, int step, int cols, const void *, Left &w) {
        if constexpr (WIDE) Type::eight(row, step, w.w);
        else
            for (int k = 0; k < 8; k++) w.w[k] = 8 * step + k < cols ? Type::value(row, 8 * step + k) : 0.0f;
    }
    static DEVICE void right(const void *input, int64_t row, int step, int cols, Right &x) {
        const float *p = static_cast<const float *>(input) + row * cols + 8 * step;
        if constexpr (WIDE) F32::eight(reinterpret_cast<const uint8_t *>(p), 0, x.x);
        else
            for (int k = 0; k < 8; k++) x.x[k] = 8 * step + k < cols ? load<float>(p + k) : 0.0f;
    }
    static DEVICE float add(const Left &w, const Right &x, float sum) {
        for (int k = 0; k < 8; k++) sum = fmaf(w.w[k], x.x[k], sum);
        return sum;
    }
};

/// The tree of `warp_sum<PARTS>`, for parts that lie `stride` floats apart.
DEVICE float sum_parts(const float *part, int stride) {
    float s[PARTS];
    for (int p = 0; p < PARTS; p++) s[p] = part[p * stride];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/// Instantiates a kernel for every type of weights: `packed(name, Type)`, `half(name, Type)` and so on.
#define FOR_TYPES(packed, half, bfloat, plain)                                                                       \
    packed(q4_0, Q4_0) packed(q4_1, Q4_1) packed(q5_0, Q5_0) packed(q5_1, Q5_1) packed(q8_0, Q8_0)                   \
    packed(q2_k, Q2_K) packed(q3_k, Q3_K) packed(q4_k, Q4_K) packed(q5_k, Q5_K) packed(q6_k, Q6_K)                   \
    packed(iq4_nl, IQ4_NL) packed(iq4_xs, IQ4_XS) packed(mxfp4, MXFP4) packed(nvfp4, NVFP4)                          \
    packed(iq1_s, IQ1_S) packed(iq1_m, IQ1_M) packed(iq2_xxs, IQ2_XXS) packed(iq2_xs, IQ2_XS) packed(iq2_s, IQ2_S)   \
    packed(iq3_xxs, IQ3_XXS) packed(iq3_s, IQ3_S)                                                                    \
    packed(tq1_0, TQ1_0) packed(tq2_0, TQ2_0) packed(q1_0, Q1_0) packed(q2_0, Q2_0)                                  \
    half(f16, F16) bfloat(bf16, BF16) plain(f32, F32)
