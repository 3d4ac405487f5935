// What the fake driver knows: GPUs, what is allocated there, and work that was given and not done yet.
#pragma once
#include <climits>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include "settings.h"

#define API extern "C" __attribute__((visibility("default"))) int

namespace {
enum { SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE = 100, INVALID_CONTEXT = 201, INVALID_PTX = 218, INVALID_HANDLE = 400, NOT_FOUND = 500, ALREADY_ENABLED = 704, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801 };

struct {
    long long launched, made, changed, graphs, staged, direct, waits;
} counts;

/// Any thread may call; one at a time is in here.
std::recursive_mutex one_at_a_time;
struct Guard {
    std::lock_guard<std::recursive_mutex> guard{one_at_a_time};
};

struct Device;

/// Work that was given and not done yet. It is known by a number, for an event may outlive it.
struct Stream {
    Device &device;
    const long long number;
    /// Waits are work that says whether there was something to wait for.
    std::deque<std::function<bool()>> work;
    long long given = 0, done = 0;
    /// Does what was given before this. Whether there was something to do.
    bool catch_up(long long until = LLONG_MAX);
};
std::map<long long, Stream *> streams;

/// Where it was recorded last, after how much work. Streams are numbered from 1 on.
struct Event {
    Device &device;
    long long stream = 0, after = 0;
    bool catch_up() const {
        auto found = streams.find(stream);
        return found != streams.end() && found->second->catch_up(after);
    }
};

/// A GPU; its context is its address.
struct Device {
    std::map<uint64_t, size_t> allocations;
    std::map<void *, size_t> pinned;
    /// GPUs whose memory it reaches.
    std::set<void *> reached;
    size_t used = 0;
    int handles = 0, contexts = 0, opened = 0;
    long long launches = 0;
    bool lost = false;
} devices[4];

bool Stream::catch_up(long long until) {
    bool something = false;
    while (done < until && !work.empty()) {
        auto next = std::move(work.front());
        work.pop_front();
        done++;
        // What a lost GPU had to do is not done.
        if (!device.lost) something |= next();
    }
    return something;
}

/// All work of a GPU, or none of it any more.
void catch_up(Device &device) {
    for (auto &stream : streams)
        if (&stream.second->device == &device) stream.second->catch_up();
}
void forget(Device &device) {
    for (auto &stream : streams)
        if (&stream.second->device == &device) stream.second->work.clear(), stream.second->done = stream.second->given;
}

/// Work is done in no order that its caller did not ask for: that is a mistake of ours, which would be hard to find on a GPU.
void must(bool right, const char *what) {
    if (right) return;
    fprintf(stderr, "libcuda: %s\n", what);
    abort();
}

thread_local void *current = nullptr;

/// The one whose context is current; calls without one go to the first, which has then no context.
Device &now() { return current ? *static_cast<Device *>(current) : devices[0]; }
int number(const Device &device) { return int(&device - devices); }

size_t free_memory(const Device &device = now()) {
    const size_t others = size_t(of_file("FAKE_CUDA_OTHERS", 0, 0, number(device)));
    const size_t gone = device.used + others, all = memory(number(device));
    return gone < all ? all - gone : 0;
}

int ready() { return now().lost ? LAUNCH_FAILED : !current || !now().contexts ? INVALID_CONTEXT : SUCCESS; }

/// Work for a stream of the current context.
int give(void *to, std::function<bool()> work) {
    if (int error = ready()) return error;
    Stream &stream = *static_cast<Stream *>(to);
    if (&stream.device != &now()) return INVALID_HANDLE;
    stream.work.push_back(std::move(work));
    stream.given++;
    if (!setting("FAKE_CUDA_LATE", 1)) stream.catch_up();
    return ready();
}

/// Whether memory of the host is pinned, for any GPU.
bool is_pinned(const void *start, size_t bytes) {
    for (Device &device : devices) {
        auto after = device.pinned.upper_bound(const_cast<void *>(start));
        if (after == device.pinned.begin()) continue;
        --after;
        if (static_cast<const char *>(start) + bytes <= static_cast<char *>(after->first) + after->second) return true;
    }
    return false;
}

bool inside(uint64_t start, size_t bytes, Device &device = now()) {
    auto after = device.allocations.upper_bound(start);
    if (after == device.allocations.begin()) return false;
    --after;
    return start + bytes <= after->first + after->second;
}
}  // namespace
