// Runs kernels on the CPU: every CUDA thread is a fiber, all fibers take turns on one OS thread (x86-64 Linux).
//
// Order is deterministic for a seed. Deadlocks (also at barriers that not all threads come to) and diverged warp operations abort
// with the place; shared memory is full of NaN when a block starts, and nothing may be written behind it; other accesses out of
// bounds show under AddressSanitizer. tests/faults.rs tries that. One launch at a time.
// Compile with -fno-strict-aliasing -ffp-contract=off.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "fibers.h"

struct alignas(8) uint2 {
    unsigned x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace emulator {
/// What a kernel sees of its place; the fiber that runs now is `fibers.current`.
struct Launch {
    uint3 grid, block, block_index;
    char *shared;
    size_t shared_bytes;
};
inline Launch launch;
inline Fibers fibers;

inline uint3 thread_index() {
    const unsigned t = fibers.current, x = launch.block.x, y = launch.block.y;
    return {t % x, t / x % y, t / x / y};
}

[[noreturn]] inline void die(const char *what) {
    const uint3 b = launch.block_index;
    fprintf(stderr, "emulator: %s (block %u,%u,%u, thread %d)\n", what, b.x, b.y, b.z, int(fibers.current));
    fibers.print_waiting();
    abort();
}

// Static shared memory of a library has a place of its own, except in templates of sources, where the compiler does not give it
// one, and under AddressSanitizer, which then does not know where each variable ends.
#ifdef __SANITIZE_ADDRESS__
#define STATIC_SHARED
inline void spoil_statics() {}
#else
#define STATIC_SHARED __attribute__((section("static_shared")))
extern "C" {
extern char __start_static_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_static_shared[] __attribute__((weak, visibility("hidden")));
}
inline void spoil_statics() { memset(__start_static_shared, 0xff, size_t(__stop_static_shared - __start_static_shared)); }
#endif

/// Bytes behind dynamic shared memory that must stay as they are; AddressSanitizer sees its end by itself.
#ifdef __SANITIZE_ADDRESS__
const size_t BEHIND = 0;
#else
const size_t BEHIND = 64;
#endif

/// Runs `body` once for each thread of each block.
inline void run(void (*kernel)(const void *), const void *arguments, uint3 grid, uint3 block, size_t shared, uint64_t seed) {
    launch.grid = grid;
    launch.block = block;
    launch.shared_bytes = shared;
    const int threads = int(block.x * block.y * block.z);
    if (threads < 1 || threads > 1024) die("a block has 1 to 1024 threads");
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                launch.block_index = {x, y, z};
                void *memory = nullptr;
                if (posix_memalign(&memory, 16, shared + BEHIND)) abort();
                launch.shared = static_cast<char *>(memory);
                if (shared + BEHIND) memset(memory, 0xff, shared + BEHIND);
                spoil_statics();
                if (!fibers.run(threads, kernel, arguments, seed)) die("deadlock");
                for (size_t i = shared; i < shared + BEHIND; i++)
                    if (uint8_t(launch.shared[i]) != 0xff) die("something was written behind shared memory");
                free(memory);
            }
}
}  // namespace emulator

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::launch.block_index)
#define blockDim (emulator::launch.block)
#define gridDim (emulator::launch.grid)
#define __shared__ static STATIC_SHARED
#define DEVICE inline
#define DYNAMIC_SHARED(T, name) T *name = reinterpret_cast<T *>(emulator::launch.shared)

// A kernel puts itself into the library's list.
struct Kernel {
    const char *name;
    size_t arguments;
    unsigned threads;
    void (*run)(const void *);
    Kernel *next;
    static inline Kernel *first = nullptr;
    Kernel(const char *name, size_t arguments, unsigned threads, void (*run)(const void *))
        : name(name), arguments(arguments), threads(threads), run(run), next(first) {
        first = this;
    }
};
#define KERNEL(name, Args, threads)                                                                        \
    static void kernel_##name(const Args &a);                                                              \
    static Kernel entry_##name(#name, sizeof(Args), threads,                                               \
                               [](const void *a) { kernel_##name(*static_cast<const Args *>(a)); });       \
    static void kernel_##name(const Args &a)
#define KERNEL_WIDE KERNEL
#define KERNEL_BLOCKS(name, Args, threads, blocks) KERNEL(name, Args, threads)

/// 0: ran; 1: no such kernel; 2: its arguments have another size; 3: more threads than it is made for.
extern "C" inline __attribute__((used, visibility("default"))) int emulator_launch(
    const char *name, const void *arguments, size_t size, const unsigned *grid, const unsigned *block, size_t shared,
    uint64_t seed) {
    for (Kernel *k = Kernel::first; k; k = k->next) {
        if (strcmp(k->name, name)) continue;
        if (k->arguments != size) return 2;
        if (block[0] * block[1] * block[2] > k->threads) return 3;
        emulator::run(k->run, arguments, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, seed);
        return 0;
    }
    return 1;
}

#include "device.h"
