// What code that ptx.py makes stands on.
#pragma once
#include <cfenv>
#include <limits>
#include <type_traits>

/// f16 in 16 bits.
struct Half {
    uint16_t bits;
    Half(float x) : bits(float_to_half(x)) {}
    operator float() const { return half_to_float(bits); }
};

/// The low bits of a register, or all of them and zeros.
template <class To, class From> To as(From from) {
    To to;
    uint64_t bits = 0;
    memcpy(&bits, &from, sizeof from);
    memcpy(static_cast<void *>(&to), &bits, sizeof to);
    return to;
}
template <> inline Half as<Half, uint16_t>(uint16_t bits) {
    Half h(0);
    h.bits = bits;
    return h;
}

/// A result as a register has it: integers are extended as their sign says, all else keeps its bits.
template <class To, class From> To widen(From from) {
    if constexpr (std::is_same<From, Half>::value) return To(from.bits);
    else if constexpr (std::is_integral<From>::value && std::is_integral<To>::value) return To(from);
    else return as<To>(from);
}

[[noreturn]] inline void does_not_end() { emulator::die("it does not end"); }

/// The number of the mutant that HEADROOM_MUTANT names, as MODULE:KERNEL:NUMBER; -1 for none.
inline int chosen_mutant() {
    const char *chosen = getenv("HEADROOM_MUTANT");
    const char *colon = chosen ? strrchr(chosen, ':') : nullptr;
    return colon ? atoi(colon + 1) : -1;
}

/// A kernel's only parameter is a struct of `size` bytes.
template <class T> T parameter(const void *parameters, size_t offset, size_t size) {
    if (offset + sizeof(T) > size) emulator::die("the arguments end before this");
    T value;
    memcpy(&value, static_cast<const char *>(parameters) + offset, sizeof value);
    return value;
}

/// Vectors lie at multiples of their size.
inline void aligned(uint64_t address, size_t bytes) {
    if (address % bytes) emulator::die("a vector is not aligned");
}

template <class T> T *global_at(uint64_t address) {
    if (address % sizeof(T)) emulator::die("a global access is not aligned");
    return reinterpret_cast<T *>(address);
}

const uint64_t STATIC = 1 << 20;
/// Space for all static shared memory of a block: blocks run one after the other.
alignas(16) STATIC_SHARED static char statics[4096];
template <class T> T *shared_at(uint64_t address) {
    const uint32_t offset = uint32_t(address);
    if (offset % sizeof(T)) emulator::die("a shared access is not aligned");
    if (offset >= STATIC) {
        if (offset - STATIC + sizeof(T) > sizeof statics) emulator::die("static shared memory ends before this");
        return reinterpret_cast<T *>(statics + (offset - STATIC));
    }
    if (offset + sizeof(T) > emulator::launch.shared_bytes) emulator::die("dynamic shared memory ends before this");
    return reinterpret_cast<T *>(emulator::launch.shared + offset);
}

template <class T> T shl(T x, uint32_t n) { return n >= 8 * sizeof(T) ? T(0) : T(typename std::make_unsigned<T>::type(x) << n); }
template <class T> T shr(T x, uint32_t n) { return n >= 8 * sizeof(T) ? T(x < 0 ? -1 : 0) : T(x >> n); }
template <class T> T maximum(T a, T b) {
    if constexpr (std::is_floating_point<T>::value) return std::fmax(a, b);
    else return a > b ? a : b;
}
template <class T> T minimum(T a, T b) {
    if constexpr (std::is_floating_point<T>::value) return std::fmin(a, b);
    else return a < b ? a : b;
}
inline float saturate(float x) { return x > 1 ? 1.0f : x > 0 ? x : 0.0f; }
/// Towards zero, to the nearest that the type has; NaN becomes 0.
template <class To> To truncate(double x) {
    if (x != x) return 0;
    const double low = double(std::numeric_limits<To>::min()), high = double(std::numeric_limits<To>::max());
    return x <= low ? std::numeric_limits<To>::min() : x >= high ? std::numeric_limits<To>::max() : To(x);
}
/// In another rounding mode; volatile keeps the sum between the two calls.
inline float rounded_fma(int mode, float a, float b, float c) {
    fesetround(mode);
    volatile float x = a, y = b, z = c;
    volatile float result = fmaf(x, y, z);
    fesetround(FE_TONEAREST);
    return result;
}
inline float fma_down(float a, float b, float c) { return rounded_fma(FE_DOWNWARD, a, b, c); }
inline float add_to_zero(float a, float b) { return rounded_fma(FE_TOWARDZERO, a, 1, b); }
/// Bits from a position on. Signed ones are extended by the highest of them (or of the register).
template <class T> T bit_field(T x, uint32_t position, uint32_t length) {
    typedef typename std::make_unsigned<T>::type Bits;
    const uint32_t width = 8 * sizeof(T);
    position &= 255;
    length &= 255;
    const uint32_t last = position + length - 1 < width ? position + length - 1 : width - 1;
    const bool sign = std::is_signed<T>::value && length && (Bits(x) >> last & 1);
    const uint32_t kept = position >= width ? 0 : length < width - position ? length : width - position;
    const Bits mask = kept >= width ? Bits(-1) : (Bits(1) << kept) - 1, low = kept ? Bits(x) >> position & mask : 0;
    return T(sign ? low | ~mask : low);
}
inline uint32_t bit_insert(uint32_t from, uint32_t into, uint32_t position, uint32_t length) {
    const uint64_t mask = ((1ull << length) - 1) << position;
    return uint32_t(((uint64_t(from) << position) & mask) | (into & ~mask));
}

/// shfl.sync: `c` holds the last lane and the segment. A lane without a source keeps its own value.
inline uint32_t shuffle_from(uint32_t mask, uint32_t value, int from, bool good) {
    return emulator::shuffle(mask, value, good ? from : emulator::fibers.current % 32, "shfl.sync");
}
inline uint32_t shuffle_bfly(uint32_t mask, uint32_t value, uint32_t b, uint32_t c) {
    const int me = emulator::fibers.current % 32, segment = c >> 8 & 31, last = (me & segment) | (int(c & 31) & ~segment);
    return shuffle_from(mask, value, me ^ int(b & 31), (me ^ int(b & 31)) <= last);
}
inline uint32_t shuffle_idx(uint32_t mask, uint32_t value, uint32_t b, uint32_t c) {
    const int me = emulator::fibers.current % 32, segment = c >> 8 & 31, last = (me & segment) | (int(c & 31) & ~segment);
    const int from = (me & segment) | (int(b & 31) & ~segment);
    return shuffle_from(mask, value, from, from <= last);
}
