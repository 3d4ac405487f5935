// Fibers that wait for each other: at barriers of all, or at operations of a group of 32 (a warp).
#pragma once
#include <sys/mman.h>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "sanitizer.h"

extern "C" void emulator_switch(void **save, void *to);
asm(R"(
.text
.weak emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

namespace emulator {
struct Fiber {
    void *stack_pointer = nullptr;
    char *stack = nullptr;
    void *context = nullptr;
    bool done = true, waiting = false;
    const char *operation = nullptr;   // what it waits in
    unsigned mask = 0;                 // lanes that take part
    const void *in = nullptr;
    void *out = nullptr;
};

/// Points in time that sanitizers know: of each two barriers in a row one.
struct Phases {
    char points[2];
    int now = 0;
};

/// A number that all fibers read while the others' part is being written.
struct Shared {
    int value = 0;
    operator int() const { return __atomic_load_n(&value, __ATOMIC_RELAXED); }
    void operator=(int to) { __atomic_store_n(&value, to, __ATOMIC_RELAXED); }
};

struct Fibers {
    static const size_t STACK = 256 << 10;
    std::vector<Fiber> all;
    std::vector<unsigned> arrived;   // of each warp: lanes that wait in its operation
    Shared current;
    int count = 0, live = 0, at_barrier = 0;
    Phases barriers, warps[32];
    char ends = 0;
    void *main = nullptr, *main_context = nullptr;
    void (*kernel)(const void *) = nullptr;
    const void *arguments = nullptr;

    static void entry();
    void to_main() {
        void **mine, *to, *context;
        {
            const sanitizer::Unseen unseen;
            mine = &all[current].stack_pointer;
            to = main;
            context = main_context;
        }
        sanitizer::leave(context);
        emulator_switch(mine, to);
    }

    void wait(const char *operation, unsigned mask) {
        Fiber &me = all[current];
        me.operation = operation;
        me.mask = mask;
        me.waiting = true;
        to_main();
    }

    void prepare(int threads) {
        while (int(all.size()) < (threads + 31) / 32 * 32) {
            Fiber fiber;
            // The lowest page stays unmapped: an overflow faults.
            const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
            char *stack = static_cast<char *>(mmap(nullptr, STACK + 4096, PROT_READ | PROT_WRITE, flags, -1, 0));
            if (stack == MAP_FAILED) abort();
            mprotect(stack, 4096, PROT_NONE);
            fiber.stack = stack + 4096;
            fiber.context = sanitizer::new_context();
            all.push_back(fiber);
        }
        count = live = threads;
        at_barrier = 0;
        arrived.assign((threads + 31) / 32, 0);
        for (int t = 0; t < threads; t++) {
            Fiber &fiber = all[t];
            fiber.done = fiber.waiting = false;
            fiber.operation = nullptr;
            // What is left is the frame of `entry`, which does not return.
            sanitizer::fresh(fiber.stack + STACK - 4096, 4096);
            void **top = reinterpret_cast<void **>(fiber.stack + STACK);
            *--top = nullptr;
            *--top = reinterpret_cast<void *>(&entry);
            for (int i = 0; i < 6; i++) *--top = nullptr;
            fiber.stack_pointer = top;
        }
    }

    void release_barrier() {
        at_barrier = 0;
        barriers.now ^= 1;
        for (int t = 0; t < count; t++) all[t].waiting = false;
    }

    /// Runs all threads to their end; false if they wait for each other forever.
    bool run(int threads, void (*body)(const void *), const void *with, uint64_t seed) {
        kernel = body;
        arguments = with;
        prepare(threads);
        main_context = sanitizer::this_context();
        while (live > 0) {
            bool moved = false;
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            const int start = seed % 7 ? int((seed >> 33) % unsigned(threads)) : 0;
            for (int i = 0; i < threads; i++) {
                Fiber &fiber = all[(start + i) % threads];
                if (fiber.done || fiber.waiting) continue;
                current = (start + i) % threads;
                moved = true;
                void *to = fiber.stack_pointer;
                sanitizer::enter(fiber.context);
                emulator_switch(&main, to);
            }
            // Threads that have ended do not count at a barrier.
            if (live > 0 && at_barrier == live) release_barrier();
            else if (!moved) return false;
        }
        sanitizer::acquire(&ends);
        return true;
    }

    void print_waiting() const {
        for (int t = 0; t < count; t++)
            if (!all[t].done)
                fprintf(stderr, "  thread %d waits in %s, mask %08x\n", t, all[t].operation ? all[t].operation : "-", all[t].mask);
    }
};
}  // namespace emulator
