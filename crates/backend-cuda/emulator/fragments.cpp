// What lanes have of the matrices of mma.sync, said once more, element by element as the PTX ISA's tables do ("Matrix
// fragments for mma.m16n8k16 with floating point type", "... m16n8k32" with .s8): tests/fragments.rs compares what the
// emulator computes from it with whole matrices.
#include "cuda.h"

struct FragmentArgs {
    const float *a, *b, *c;   // [16][K], [K][8], [16][8]
    float *d;                 // [16][8]
    int32_t kind, unused;     // 0: f16, 1: bf16, K = 16; 2: s8, K = 32
};

static uint16_t half_bits(float x, bool bf16) { return bf16 ? uint16_t(float_to_bits(x) >> 16) : float_to_half(x); }

KERNEL(fragments, FragmentArgs, 32) {
    const int group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
    uint32_t left[4] = {0, 0, 0, 0}, right[2] = {0, 0};
    float c[4];
    int sums[4];
    for (int i = 0; i < 4; i++) {
        const int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
        c[i] = a.c[row * 8 + column];
        sums[i] = int(c[i]);
    }
    if (a.kind == 2) {
        for (int i = 0; i < 16; i++) {
            const int row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
            const int column = in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0);
            left[i / 4] |= uint32_t(uint8_t(int8_t(a.a[row * 32 + column]))) << 8 * (i % 4);
        }
        for (int i = 0; i < 8; i++) {
            const int row = in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0);
            right[i / 4] |= uint32_t(uint8_t(int8_t(a.b[row * 8 + group]))) << 8 * (i % 4);
        }
        const int x[4] = {int(left[0]), int(left[1]), int(left[2]), int(left[3])}, y[2] = {int(right[0]), int(right[1])};
        mma32(sums, x, y);
        for (int i = 0; i < 4; i++) c[i] = float(sums[i]);
    } else {
        const bool bf16 = a.kind == 1;
        for (int i = 0; i < 8; i++) {
            const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
            const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            left[i / 2] |= uint32_t(half_bits(a.a[row * 16 + column], bf16)) << 16 * (i % 2);
        }
        for (int i = 0; i < 4; i++) {
            const int row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
            right[i / 2] |= uint32_t(half_bits(a.b[row * 8 + group], bf16)) << 16 * (i % 2);
        }
        if (bf16) mma_bf16(c, left, right);
        else mma_f16(c, left, right);
    }
    for (int i = 0; i < 4; i++) a.d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = c[i];
}
