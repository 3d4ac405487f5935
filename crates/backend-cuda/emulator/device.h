// The device functions that kernels use, over fibers.
#pragma once

namespace emulator {
inline void Fibers::entry() {
    fibers.kernel(fibers.arguments);
    {
        const sanitizer::Unseen unseen;
        sanitizer::release(&fibers.ends);
        fibers.all[fibers.current].done = true;
        fibers.live--;
    }
    fibers.to_main();
    abort();
}

/// An operation of a warp's lanes in `mask`: the last lane to come computes all results from all operands.
template <class In, class Out, class F> Out collective(unsigned mask, const In &in, const char *name, F compute) {
    const sanitizer::Unseen unseen;
    const int me = fibers.current, warp = me / 32;
    // Of all operations of a warp only this one orders accesses to memory.
    Phases &phases = fibers.warps[warp];
    char *point = strcmp(name, "__syncwarp") ? nullptr : &phases.points[phases.now];
    if (point) sanitizer::release(point);
    Fiber *lanes = &fibers.all[warp * 32];
    if (!(mask >> (me % 32) & 1)) die("a lane is not in the mask of its warp operation");
    Out out{};
    Fiber &fiber = fibers.all[me];
    fiber.in = &in;
    fiber.out = &out;
    fiber.operation = name;
    fiber.mask = mask;
    unsigned &arrived = fibers.arrived[warp];
    arrived |= 1u << me % 32;
    if ((arrived & mask) != mask) {
        fibers.wait(name, mask);
        if (point) sanitizer::acquire(point);
        return out;
    }
    const In *ins[32] = {};
    Out *outs[32] = {};
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        if (lanes[l].mask != mask || strcmp(lanes[l].operation, name)) die("a warp operation diverges");
        ins[l] = static_cast<const In *>(lanes[l].in);
        outs[l] = static_cast<Out *>(lanes[l].out);
    }
    compute(ins, outs);
    arrived &= ~mask;
    for (int l = 0; l < 32; l++)
        if (mask >> l & 1) lanes[l].waiting = false;
    if (point) {
        phases.now ^= 1;
        sanitizer::acquire(point);
    }
    return out;
}

struct Shuffle {
    unsigned value;
    int from;
};
template <class T> T shuffle(unsigned mask, T value, int from, const char *name) {
    static_assert(sizeof(T) == 4, "shuffles move 32 bits");
    Shuffle in;
    memcpy(&in.value, &value, 4);
    in.from = from;
    const unsigned bits = collective<Shuffle, unsigned>(mask, in, name, [](const Shuffle **ins, unsigned **outs) {
        for (int l = 0; l < 32; l++) {
            if (!outs[l]) continue;
            if (!ins[ins[l]->from]) die("a shuffle reads an inactive lane");
            *outs[l] = ins[ins[l]->from]->value;
        }
    });
    T out;
    memcpy(&out, &bits, 4);
    return out;
}
}  // namespace emulator

template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return emulator::shuffle(mask, value, emulator::fibers.current % 32 ^ bits, "__shfl_xor_sync");
}
template <class T> T __shfl_sync(unsigned mask, T value, int from) {
    return emulator::shuffle(mask, value, from & 31, "__shfl_sync");
}
inline unsigned __ballot_sync(unsigned mask, bool yes) {
    return emulator::collective<bool, unsigned>(mask, yes, "__ballot_sync", [](const bool **ins, unsigned **outs) {
        unsigned all = 0;
        for (int l = 0; l < 32; l++)
            if (ins[l] && *ins[l]) all |= 1u << l;
        for (int l = 0; l < 32; l++)
            if (outs[l]) *outs[l] = all;
    });
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline void __syncwarp(unsigned mask = ~0u) {
    emulator::collective<int, int>(mask, 0, "__syncwarp", [](const int **, int **) {});
}
inline void __syncthreads() {
    using emulator::fibers;
    const sanitizer::Unseen unseen;
    char *point = &fibers.barriers.points[fibers.barriers.now];
    sanitizer::release(point);
    if (++fibers.at_barrier < fibers.live) {
        fibers.wait("__syncthreads", 0);
        return sanitizer::acquire(point);
    }
    fibers.release_barrier();
    sanitizer::acquire(point);
}

inline int dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += int8_t(a >> 8 * i) * int8_t(b >> 8 * i);
    return c;
}
// Code from PTX brings what it has; of sources, those for Turing make these products themselves.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define LATER_TENSOR_CORES
#endif
namespace emulator {
struct Mma {
    int a[4], b[2], c[4];
};
struct MmaResult {
    int c[4];
};
/// c[rows][8] += a[rows][K] b[K][8] of signed bytes: lanes have what PTX says of m16n8k32, m16n8k16 and m8n8k16.
inline void mma(int (&c)[4], const Mma &in, int rows, int K, const char *name) {
    const MmaResult result = collective<Mma, MmaResult>(~0u, in, name, [rows, K](const Mma **ins, MmaResult **outs) {
        for (int row = 0; row < rows; row++)
            for (int column = 0; column < 8; column++) {
                const int to = row % 8 * 4 + column / 2, at = row / 8 * 2 + column % 2;
                uint32_t sum = uint32_t(ins[to]->c[at]);
                for (int k = 0; k < K; k++) {
                    const int word = k / 16, l = k % 16 / 4, shift = 8 * (k % 4);
                    const int8_t x = int8_t(ins[row % 8 * 4 + l]->a[row / 8 + 2 * word] >> shift);
                    const int8_t y = int8_t(ins[column * 4 + l]->b[word] >> shift);
                    sum += uint32_t(x * y);
                }
                outs[to]->c[at] = int(sum);
            }
    });
    memcpy(c, result.c, sizeof c);
}
}  // namespace emulator
inline void mma8(int &c_even, int &c_odd, int a, int b) {
    int c[4];
    emulator::mma(c, {{a, 0, 0, 0}, {b, 0}, {c_even, c_odd, 0, 0}}, 8, 16, "mma.m8n8k16");
    c_even = c[0], c_odd = c[1];
}
#ifdef LATER_TENSOR_CORES
inline void mma32(int (&c)[4], const int (&a)[4], const int (&b)[2]) {
    emulator::mma(c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}}, 16, 32, "mma.m16n8k32");
}
inline void mma16(int (&c)[4], int a_upper, int a_lower, int b) {
    emulator::mma(c, {{a_upper, a_lower, 0, 0}, {b, 0}, {c[0], c[1], c[2], c[3]}}, 16, 16, "mma.m16n8k16");
}
#endif
namespace emulator {
struct HalfMma {
    uint32_t a[4], b[2];
    float c[4];
};
struct HalfMmaResult {
    float c[4];
};
/// To f32, towards zero.
inline float cut(double x) {
    const float f = float(x);
    return std::fabs(double(f)) > std::fabs(x) ? std::nextafterf(f, 0) : f;
}
/// c[16][8] += a[16][K] b[K][8] of halves: lanes have what PTX says of m16n8k16 and m16n8k8. PTX leaves open how sums are rounded.
/// This is a poor way that GPUs are known to come near to: eight products at once, exactly, and the sum cut off.
template <class Number> void mma(float (&c)[4], const HalfMma &in, int K, Number number, const char *name) {
    const HalfMmaResult result = collective<HalfMma, HalfMmaResult>(~0u, in, name, [K, number](const HalfMma **ins, HalfMmaResult **outs) {
        double a[16][16], b[16][8];
        for (int k = 0; k < K; k++) {
            const int word = k / 8, l = k % 8 / 2, shift = 16 * (k % 2);
            for (int row = 0; row < 16; row++)
                a[row][k] = double(number(uint16_t(ins[row % 8 * 4 + l]->a[row / 8 + 2 * word] >> shift)));
            for (int column = 0; column < 8; column++)
                b[k][column] = double(number(uint16_t(ins[column * 4 + l]->b[word] >> shift)));
        }
        for (int row = 0; row < 16; row++)
            for (int column = 0; column < 8; column++) {
                const int to = row % 8 * 4 + column / 2, at = row / 8 * 2 + column % 2;
                float sum = ins[to]->c[at];
                for (int first = 0; first < K; first += 8) {
                    double exact = double(sum);
                    for (int k = first; k < first + 8; k++) exact += a[row][k] * b[k][column];
                    sum = cut(exact);
                }
                outs[to]->c[at] = sum;
            }
    });
    memcpy(c, result.c, sizeof c);
}
}  // namespace emulator
inline uint32_t permute(uint32_t a, uint32_t b, uint32_t select) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned s = select >> 4 * i & 15;
        if (s & 8) emulator::die("permute with a sign bit");
        result |= uint32_t(uint8_t(bytes >> 8 * s)) << 8 * i;
    }
    return result;
}
inline float half_to_float(uint16_t bits) {
    _Float16 h;
    memcpy(&h, &bits, 2);
    return float(h);
}
inline uint16_t float_to_half(float f) {
    const _Float16 h = _Float16(f);
    uint16_t bits;
    memcpy(&bits, &h, 2);
    return bits;
}
inline float bits_to_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
inline uint32_t float_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}
inline void sincospif(float x, float *sine, float *cosine) {
    *sine = float(sin(M_PI * double(x)));
    *cosine = float(cos(M_PI * double(x)));
}
inline void mma_f16_of_8(float (&c)[4], uint32_t a_upper, uint32_t a_lower, uint32_t b) {
    emulator::mma(c, {{a_upper, a_lower, 0, 0}, {b, 0}, {c[0], c[1], c[2], c[3]}}, 8, half_to_float, "mma.f16.m16n8k8");
}
#ifdef LATER_TENSOR_CORES
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulator::mma(c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}}, 16, half_to_float, "mma.f16");
}
inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const auto number = [](uint16_t bits) { return bits_to_float(uint32_t(bits) << 16); };
    emulator::mma(c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}}, 16, number, "mma.bf16");
}
#endif
inline int opaque(int x) { return x; }
/// Loads are aligned on a GPU, or they fault.
template <class T> T load(const void *p) {
    if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) emulator::die("a load is not aligned");
    T value;
    memcpy(&value, p, sizeof(T));
    return value;
}
