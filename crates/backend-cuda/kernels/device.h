// What every kernel starts with: types, loads, the few instructions that C++ has no word for, sums over a warp.
//
// Kernels are compiled twice: by NVRTC to PTX, and, for tests, as host C++ over ../emulator/cuda.h. What differs between the
// two is in this file and there. No CUDA header is needed. Products are only fused where fmaf says so (--fmad=false), so
// both ways, and all kernels that share a formula, give the same bits.
#pragma once

#ifdef HEADROOM_EMULATOR
#include "../emulator/cuda.h"
#else
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

// A kernel takes one struct of arguments, whose Rust twin has the same layout: 8-byte members first.
#define KERNEL(name, Args, threads) extern "C" __global__ void __launch_bounds__(threads) name(const Args a)
// One that gets all the registers with which so many blocks fit a multiprocessor, where the compiler would rather spill a few
// than lose occupancy.
#define KERNEL_BLOCKS(name, Args, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Args a)
#define KERNEL_WIDE(name, Args, threads) KERNEL_BLOCKS(name, Args, threads, 1)
#define DYNAMIC_SHARED(T, name)                                      \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];  \
    T *name = reinterpret_cast<T *>(dynamic_shared)
#define DEVICE __device__ __forceinline__
#define CONSTANT __constant__ const

/// c plus the products of four pairs of signed bytes.
DEVICE int dp4a(int a, int b, int c) {
    // Inline, because NVRTC 12.0 leaves __dp4a as an unresolved symbol.
    int r;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

#if __CUDA_ARCH__ >= 800
// Tensor cores: c[16][8] += a[16][K] b[K][8], K = 32 or 16 signed bytes, exactly. Of a, lane 4g + k has bytes 4k to 4k + 3 of
// rows g and g + 8 (and those 16 further on), of b of column g; of c it has columns 2k and 2k + 1 of rows g and g + 8.
DEVICE void mma32(int (&c)[4], const int (&a)[4], const int (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma16(int (&c)[4], int a_upper, int a_lower, int b) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a_upper), "r"(a_lower), "r"(b));
}
// The same with halves, in f32: c[16][8] += a[16][16] b[16][8]. Of a, lane 4g + k has columns 2k and 2k + 1 of rows g and
// g + 8 (a[0], a[1]) and those 8 further on (a[2], a[3]), of b these rows of column g.
#define HALF_PRODUCT(name, type)                                                                                      \
    DEVICE void name(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {                                 \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                                    \
            ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                    \
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                          \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                      \
    }
HALF_PRODUCT(mma_f16, "f16")
HALF_PRODUCT(mma_bf16, "bf16")
#elif __CUDA_ARCH__ >= 750
// The first tensor cores with signed bytes: c[8][8] += a[8][16] b[16][8]. Of a, lane 4g + k has bytes 4k to 4k + 3 of row g, of b
// of column g; of c it has columns 2k and 2k + 1 of row g.
DEVICE void mma8(int &c_even, int &c_odd, int a, int b) {
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+r"(c_even), "+r"(c_odd)
        : "r"(a), "r"(b));
}
// And with halves: c[16][8] += a[16][8] b[8][8]. Of a, lane 4g + k has columns 2k and 2k + 1 of rows g and g + 8, of b these rows
// of column g.
DEVICE void mma_f16_of_8(float (&c)[4], uint32_t a_upper, uint32_t a_lower, uint32_t b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a_upper), "r"(a_lower), "r"(b));
}
#endif

/// Four of the eight bytes in a (0..4) and b (4..8), one nibble of `select` each.
DEVICE uint32_t permute(uint32_t a, uint32_t b, uint32_t select) {
    uint32_t r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(select));
    return r;
}

DEVICE float half_to_float(uint16_t h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

DEVICE uint16_t float_to_half(float f) {
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t float_to_bits(float f) { return __float_as_uint(f); }

/// A number of which the compiler knows nothing: what follows from it is computed where it is needed, and not kept in
/// registers from before a loop on.
DEVICE int opaque(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

/// Reads what nobody writes while the kernel runs.
template <class T> DEVICE T load(const void *p) { return __ldg(static_cast<const T *>(p)); }
#endif

#if __CUDA_ARCH__ >= 750 && __CUDA_ARCH__ < 800
// The products of later tensor cores (see above), of the smaller ones that there are: their registers are the same, in another
// order, so a lane has what each of these wants. BF16 has none.
DEVICE void mma16(int (&c)[4], int a_upper, int a_lower, int b) {
    mma8(c[0], c[1], a_upper, b);
    mma8(c[2], c[3], a_lower, b);
}
DEVICE void mma32(int (&c)[4], const int (&a)[4], const int (&b)[2]) {
    mma16(c, a[0], a[1], b[0]);
    mma16(c, a[2], a[3], b[1]);
}
DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_f16_of_8(c, a[0], a[1], b[0]);
    mma_f16_of_8(c, a[2], a[3], b[1]);
}
#endif

/// 8 or 16 bytes that lie at a multiple of that, as words: one load, where four are as many trips to memory.
DEVICE void load_words(const uint8_t *p, uint32_t (&words)[2]) {
    const uint2 v = load<uint2>(p);
    words[0] = v.x;
    words[1] = v.y;
}
DEVICE void load_words(const uint8_t *p, uint32_t (&words)[4]) {
    const uint4 v = load<uint4>(p);
    words[0] = v.x;
    words[1] = v.y;
    words[2] = v.z;
    words[3] = v.w;
}

/// Four bytes that lie at a multiple of 2.
DEVICE uint32_t load32_at2(const uint8_t *p) {
    return uint32_t(load<uint16_t>(p)) | uint32_t(load<uint16_t>(p + 2)) << 16;
}

/// 4N bytes that lie at a multiple of 2, as words: N loads, and one of 2 bytes where they lie between words. Nothing past the
/// end is read; of what comes before, the rest of its word (buffers begin at multiples of 4).
template <int N> DEVICE void load_words_at2(const uint8_t *p, uint32_t (&words)[N]) {
    const uint32_t between = uint32_t(reinterpret_cast<uint64_t>(p)) & 2, select = between ? 0x5432 : 0x3210;
    uint32_t last = 0;
    if (between) last = load<uint16_t>(p + 4 * N - 2);
    for (int k = 0; k < N; k++) words[k] = load<uint32_t>(p - between + 4 * k);
    for (int k = 0; k < N; k++) words[k] = permute(words[k], k + 1 < N ? words[k + 1] : last, select);
}

/// The same for bytes that lie anywhere.
template <int N> DEVICE void load_words_at1(const uint8_t *p, uint32_t (&words)[N]) {
    const uint32_t between = uint32_t(reinterpret_cast<uint64_t>(p)) & 3, select = 0x3210 + 0x1111 * between;
    uint32_t last = 0;
    for (uint32_t k = 0; k < 3; k++)
        if (k < between) last |= uint32_t(load<uint8_t>(p - between + 4 * N + k)) << 8 * k;
    for (int k = 0; k < N; k++) words[k] = load<uint32_t>(p - between + 4 * k);
    for (int k = 0; k < N; k++) words[k] = permute(words[k], k + 1 < N ? words[k + 1] : last, select);
}

/// 16 bits in a register of 32, without an instruction that would wait for them.
DEVICE uint32_t load16(const uint8_t *p) {
#ifdef HEADROOM_EMULATOR
    return load<uint16_t>(p);
#else
    uint32_t bits;
    asm("ld.global.nc.u16 %0, [%1];" : "=r"(bits) : "l"(p));
    return bits;
#endif
}

DEVICE float load_half(const uint8_t *p) { return half_to_float(load<uint16_t>(p)); }

DEVICE float bf16_to_float(uint16_t h) { return bits_to_float(uint32_t(h) << 16); }

/// Rounds to nearest even; NaN stays NaN.
DEVICE uint16_t float_to_bf16(float f) {
    uint32_t bits = float_to_bits(f);
    if (f != f) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#define MINUS_INFINITY bits_to_float(0xff800000u)
#define NOT_A_NUMBER bits_to_float(0x7fc00000u)

const uint32_t ALL_LANES = 0xffffffffu;

DEVICE int lane() { return threadIdx.x & 31; }

// Sums and maxima over `width` neighbouring lanes, the same in all of them: the tree does not depend on anything but the
// width, and pairs are added in both lanes alike.
template <int width = 32> DEVICE float warp_sum(float x) {
    for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

DEVICE int warp_sum_int(int x, int width) {
    for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

DEVICE float warp_max(float x) {
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

/// The maximum as unsigned numbers. Of the bits of magnitudes it is the largest magnitude, or NaN if there is one.
DEVICE uint32_t warp_max_bits(uint32_t x) {
    for (int step = 16; step > 0; step /= 2) {
        uint32_t other = __shfl_xor_sync(ALL_LANES, x, step);
        x = other > x ? other : x;
    }
    return x;
}

/// The sum over a block of whole warps, at most 1024 threads, the same in all threads.
DEVICE float block_sum(float x, float *scratch) {
    x = warp_sum(x);
    const int warps = blockDim.x / 32;
    if (warps == 1) return x;
    __syncthreads();
    if (lane() == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(lane() < warps ? scratch[lane()] : 0.0f);
}
