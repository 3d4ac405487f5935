// What sanitizers must know of fibers.
//
// AddressSanitizer: a stack that is used again has no frames.
//
// ThreadSanitizer: each is a thread to it, barriers order what lies on both sides of them, and switching from one to another
// orders nothing. So a barrier that is missing is a race, whatever the order of the fibers. Races within a block are seen;
// blocks count as ordered one after the other.
#pragma once
#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
extern "C" void __asan_unpoison_memory_region(void const volatile *, size_t);
namespace sanitizer {
inline void fresh(void *start, size_t bytes) { __asan_unpoison_memory_region(start, bytes); }
}  // namespace sanitizer
#else
namespace sanitizer {
inline void fresh(void *, size_t) {}
}  // namespace sanitizer
#endif

#ifdef __SANITIZE_THREAD__
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
void AnnotateIgnoreReadsBegin(const char *, int);
void AnnotateIgnoreReadsEnd(const char *, int);
void AnnotateIgnoreWritesBegin(const char *, int);
void AnnotateIgnoreWritesEnd(const char *, int);
}
namespace sanitizer {
inline void *this_context() { return __tsan_get_current_fiber(); }
inline void *new_context() { return __tsan_create_fiber(0); }
/// Into a fiber: it sees all that was done before it was started.
inline void enter(void *context) { __tsan_switch_to_fiber(context, 0); }
/// Out of a fiber: what it did is ordered by barriers only.
inline void leave(void *context) { __tsan_switch_to_fiber(context, 1); }
inline void acquire(void *from) { __tsan_acquire(from); }
inline void release(void *to) { __tsan_release(to); }
/// While it lives, accesses are the emulator's own.
struct Unseen {
    Unseen() {
        AnnotateIgnoreReadsBegin("", 0);
        AnnotateIgnoreWritesBegin("", 0);
    }
    ~Unseen() {
        AnnotateIgnoreReadsEnd("", 0);
        AnnotateIgnoreWritesEnd("", 0);
    }
};
}  // namespace sanitizer
#else
namespace sanitizer {
inline void *this_context() { return nullptr; }
inline void *new_context() { return nullptr; }
inline void enter(void *) {}
inline void leave(void *) {}
inline void acquire(void *) {}
inline void release(void *) {}
struct Unseen {
    ~Unseen() {}
};
}  // namespace sanitizer
#endif
