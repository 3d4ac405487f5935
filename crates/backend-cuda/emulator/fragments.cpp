// What lanes have of the matrices of mma.sync, said once more, element by element as the PTX ISA's tables do ("Matrix
// fragments for mma.m16n8k16 with floating point type", "... m16n8k32" with .s8, and so on): tests/fragments.rs compares what
// the emulator computes from it with whole matrices, and what kernels for Turing make of its smaller products.
#include "../kernels/device.h"

struct FragmentArgs {
    const float *a, *b, *c;   // [rows][K], [K][8], [rows][8]
    float *d;                 // [rows][8]
    // Of 16 rows: f16 (0) and bf16 (1) with K = 16, s8 with K = 32 (2) and 16 (3), f16 with K = 8 (5); of 8 rows: s8 with K = 16 (4).
    int32_t kind, unused;
};

static uint16_t half_bits(float x, bool bf16) { return bf16 ? uint16_t(float_to_bits(x) >> 16) : float_to_half(x); }

/// Element i of the left side's registers is in this row and column.
static void place_left(int kind, int i, int group, int in_group, int &row, int &column) {
    switch (kind) {
        case 0:
        case 1:
            row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
            column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            break;
        case 2:
            row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
            column = in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0);
            break;
        case 3:
            row = i < 4 ? group : group + 8;
            column = in_group * 4 + (i & 3);
            break;
        case 4:
            row = group;
            column = in_group * 4 + i;
            break;
        default:
            row = i < 2 ? group : group + 8;
            column = in_group * 2 + (i & 1);
    }
}

/// Element i of the right side's registers is in this row, and in column `group`.
static int place_right(int kind, int i, int in_group) {
    switch (kind) {
        case 0:
        case 1: return in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
        case 2: return in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0);
        case 3:
        case 4: return in_group * 4 + i;
        default: return in_group * 2 + i;
    }
}

KERNEL(fragments, FragmentArgs, 32) {
    const int kind = a.kind, group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
    const bool bytes = kind == 2 || kind == 3 || kind == 4;
    const int rows = kind == 4 ? 8 : 16, depth = kind == 2 ? 32 : kind == 5 ? 8 : 16, each = bytes ? 4 : 2;
    uint32_t left[4] = {0, 0, 0, 0}, right[2] = {0, 0};
    float c[4] = {0, 0, 0, 0};
    int sums[4] = {0, 0, 0, 0};
    for (int i = 0; i < rows / 4; i++) {
        const int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
        c[i] = a.c[row * 8 + column];
        sums[i] = int(c[i]);
    }
    const auto bits = [&](float x) { return bytes ? uint32_t(uint8_t(int8_t(x))) : uint32_t(half_bits(x, kind == 1)); };
    for (int i = 0; i < rows * depth / 32; i++) {
        int row, column;
        place_left(kind, i, group, in_group, row, column);
        left[i / each] |= bits(a.a[row * depth + column]) << 32 / each * (i % each);
    }
    for (int i = 0; i < depth * 8 / 32; i++)
        right[i / each] |= bits(a.b[place_right(kind, i, in_group) * 8 + group]) << 32 / each * (i % each);
    const int x[4] = {int(left[0]), int(left[1]), int(left[2]), int(left[3])}, y[2] = {int(right[0]), int(right[1])};
    switch (kind) {
        case 0: mma_f16(c, left, right); break;
#if __CUDA_ARCH__ >= 800
        case 1: mma_bf16(c, left, right); break;
#endif
        case 2: mma32(sums, x, y); break;
        case 3: mma16(sums, x[0], x[1], y[0]); break;
        case 4: mma8(sums[0], sums[1], x[0], y[0]); break;
        case 5: mma_f16_of_8(c, left[0], left[1], right[0]); break;
    }
    for (int i = 0; i < rows / 4; i++)
        a.d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = bytes ? float(sums[i]) : c[i];
}
