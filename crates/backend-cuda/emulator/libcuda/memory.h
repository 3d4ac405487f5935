// Memory, of GPUs and pinned, and copies between all that there is.
#pragma once
#include <string>
#include "state.h"

API cuMemAlloc_v2(uint64_t *start, size_t bytes) {
    Guard guard;
    if (int error = ready()) return error;
    if (!bytes) return INVALID_VALUE;
    if (bytes > free_memory()) return OUT_OF_MEMORY;
    void *p = aligned_alloc(512, (bytes + 511) / 512 * 512);
    memset(p, 0xff, bytes);
    now().allocations[*start = uint64_t(p)] = bytes;
    now().used += bytes;
    return SUCCESS;
}
/// Waits for the work of this GPU, not for that of others.
API cuMemFree_v2(uint64_t start) {
    Guard guard;
    if (int error = ready()) return error;
    catch_up(now());
    auto found = now().allocations.find(start);
    if (found == now().allocations.end()) return INVALID_VALUE;
    now().used -= found->second;
    free(reinterpret_cast<void *>(start));
    now().allocations.erase(found);
    return SUCCESS;
}
API cuMemHostAlloc(void **to, size_t bytes, unsigned) {
    Guard guard;
    if (int error = ready()) return error;
    now().pinned[*to = malloc(bytes)] = bytes;
    return SUCCESS;
}
API cuMemFreeHost(void *p) {
    Guard guard;
    return now().pinned.erase(p) ? free(p), SUCCESS : INVALID_VALUE;
}
/// From memory that is not pinned the driver takes the bytes at once.
API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    Guard guard;
    if (int error = ready()) return error;
    if (!inside(to, bytes)) return INVALID_VALUE;
    if (!stream) return memcpy(reinterpret_cast<void *>(to), from, bytes), SUCCESS;
    Device &device = now();
    if (!is_pinned(from, bytes)) {
        std::string kept(static_cast<const char *>(from), bytes);
        return give(stream, [=] { return memcpy(reinterpret_cast<void *>(to), kept.data(), bytes), true; });
    }
    return give(stream, [=, &device] {
        must(inside(to, bytes, device) && is_pinned(from, bytes), "memory was given back before it was copied to the GPU");
        return memcpy(reinterpret_cast<void *>(to), from, bytes), true;
    });
}
API cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr); }
/// To memory that is not pinned the driver copies before the call returns.
API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    Guard guard;
    if (int error = ready()) return error;
    if (!inside(from, bytes)) return INVALID_VALUE;
    Device &device = now();
    const bool pinned = is_pinned(to, bytes);
    const int given = give(stream, [=, &device] {
        must(inside(from, bytes, device) && (!pinned || is_pinned(to, bytes)), "memory was given back before it was copied from the GPU");
        return memcpy(to, reinterpret_cast<void *>(from), bytes), true;
    });
    if (given || pinned) return given;
    counts.waits += static_cast<Stream *>(stream)->catch_up();
    return ready();
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    Guard guard;
    if (int error = ready()) return error;
    if (!inside(from, bytes) || !inside(to, bytes)) return INVALID_VALUE;
    return give(stream, [=] { return memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes), true; });
}
API cuDeviceCanAccessPeer(int *can, int device, int peer) {
    if (device == peer) return INVALID_VALUE;
    return *can = setting("FAKE_CUDA_PEERS", 1) >= 2, SUCCESS;
}
API cuCtxEnablePeerAccess(void *peer, unsigned flags) {
    Guard guard;
    if (int error = ready()) return error;
    if (flags || peer == current || setting("FAKE_CUDA_PEERS", 1) < 2) return INVALID_VALUE;
    return now().reached.insert(peer).second ? SUCCESS : ALREADY_ENABLED;
}
/// Waits for nothing but what is in the stream before.
API cuMemcpyPeerAsync(uint64_t to, void *here, uint64_t from, void *there, size_t bytes, void *stream) {
    Guard guard;
    if (int error = ready()) return error;
    Device &source = *static_cast<Device *>(there);
    if (source.lost) return LAUNCH_FAILED;
    if (here != current || here == there || !inside(to, bytes) || !inside(from, bytes, source)) return INVALID_VALUE;
    const long long how = setting("FAKE_CUDA_PEERS", 1);
    if (how == 0) return NOT_SUPPORTED;
    if (how >= 5) return (how == 5 ? source : now()).lost = true, LAUNCH_FAILED;
    const bool direct = now().reached.count(there);
    ++(direct ? counts.direct : counts.staged);
    Device &target = now();
    return give(stream, [=, &source, &target] {
        // Of one that was lost, and is there anew, nothing is left.
        if (source.lost || !source.contexts) return true;
        must(inside(to, bytes, target) && inside(from, bytes, source), "memory was given back before it was copied to another GPU");
        memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
        if (direct && (how == 3 || (how == 4 && bytes > 65536))) *reinterpret_cast<char *>(to + bytes / 2) ^= 1;
        return true;
    });
}
API cuMemsetD8Async(uint64_t start, unsigned char value, size_t bytes, void *stream) {
    Guard guard;
    if (int error = ready()) return error;
    if (!inside(start, bytes)) return INVALID_VALUE;
    return give(stream, [=] { return memset(reinterpret_cast<void *>(start), value, bytes), true; });
}
