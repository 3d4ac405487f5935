// Devices and their contexts.
#pragma once
#include "state.h"

API cuDriverGetVersion(int *version) { return *version = int(setting("FAKE_CUDA_VERSION", 12000)), SUCCESS; }
API cuInit(unsigned) { return device_count() ? SUCCESS : NO_DEVICE; }
API cuDeviceGetCount(int *count) { return *count = device_count(), SUCCESS; }
API cuDeviceGet(int *device, int number) {
    if (number < 0 || number >= device_count()) return 101;
    return *device = number, SUCCESS;
}
/// "Fake GPU", "Fake GPU 2", ...
API cuDeviceGetName(char *name, int size, int device) {
    if (const char *names = getenv("FAKE_CUDA_NAME")) {
        for (; device > 0 && strchr(names, ','); device--) names = strchr(names, ',') + 1;
        return snprintf(name, size_t(size), "%.*s", int(strcspn(names, ",")), names), SUCCESS;
    }
    return snprintf(name, size_t(size), device ? "Fake GPU %d" : "Fake GPU", device + 1), SUCCESS;
}
API cuDeviceGetUuid(char *uuid, int device) { return memset(uuid, device + 1, 16), SUCCESS; }
API cuDeviceGetAttribute(int *value, int attribute, int device) {
    const int capability = int(of_device("FAKE_CUDA_CAPABILITY", 86, device));
    switch (attribute) {
        case 16: return *value = 1, SUCCESS;        // multiprocessors
        case 36: return *value = 7501000, SUCCESS;  // kHz
        case 37: return *value = 192, SUCCESS;      // bits
        case 75: return *value = capability / 10, SUCCESS;
        case 76: return *value = capability % 10, SUCCESS;
        default: return INVALID_VALUE;
    }
}
API cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = memory(device), SUCCESS; }
API cuDevicePrimaryCtxRetain(void **to, int number) {
    Guard guard;
    Device &device = devices[number];
    if (device.lost || of_file("FAKE_CUDA_SHUT", 0, 1, number)) return LAUNCH_FAILED;
    if (device.contexts++ == 0) device.used += size_t(setting("FAKE_CUDA_CONTEXT", 0)), device.opened++;
    const char *path = getenv("FAKE_CUDA_OPENED");
    if (FILE *file = path ? fopen(path, "w") : nullptr) {
        for (int n = 0; n < device_count(); n++) fprintf(file, n ? ",%d" : "%d", devices[n].opened);
        fclose(file);
    }
    return *to = &device, SUCCESS;
}
/// For the management library, which asks without a context.
extern "C" __attribute__((visibility("default"))) size_t fake_cuda_free(int number) {
    Guard guard;
    return free_memory(devices[number]);
}
API cuDevicePrimaryCtxReset_v2(int number) {
    if (!setting("FAKE_CUDA_RESETS", 1)) return LAUNCH_FAILED;
    Guard guard;
    Device &device = devices[number];
    forget(device);
    for (auto &allocation : device.allocations) free(reinterpret_cast<void *>(allocation.first));
    for (auto &memory : device.pinned) free(memory.first);
    const int contexts = device.contexts, opened = device.opened;
    const long long launches = device.launches;
    device = Device();
    device.contexts = contexts;
    device.opened = opened;
    device.launches = launches;
    return device.used = size_t(setting("FAKE_CUDA_CONTEXT", 0)), SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int number) {
    Guard guard;
    Device &device = devices[number];
    const size_t kept = device.allocations.size(), pinned = device.pinned.size();
    if (--device.contexts == 0 && !device.lost && (kept || pinned || device.handles)) {
        fprintf(stderr, "libcuda: %zu allocations, %zu pinned, %d handles leaked\n", kept, pinned, device.handles);
        abort();
    }
    if (device.contexts == 0) device.used = 0;
    return SUCCESS;
}
API cuCtxSetCurrent(void *to) { return current = to, SUCCESS; }
API cuMemGetInfo_v2(size_t *free, size_t *total) {
    Guard guard;
    return *total = memory(number(now())), *free = free_memory(), ready();
}
API cuGetErrorName(int error, const char **name) {
    *name = error == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR";
    return SUCCESS;
}
