// The management library's interface beside the fake driver (`libcuda.cpp`): a libnvidia-ml.so.1 that tells how much memory is
// free on GPUs that nobody has opened. It asks the libcuda.so.1 that a program finds, in which all of it is.
//
// FAKE_NVML: "live" tells load, temperature, throttling and programs; "hostile" tells of them what no card does; without it
// nothing is told of them, as by old cards.
#include <dlfcn.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define API extern "C" __attribute__((visibility("default"))) int

namespace {
/// A function of the driver.
template <class F> F driver(const char *name) {
    static void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    void *found = library ? dlsym(library, name) : nullptr;
    if (!found) abort();
    return F(found);
}

int number(const void *device) { return int(static_cast<const char *>(device) - static_cast<const char *>(nullptr)) - 1; }

struct Memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
}  // namespace

API nvmlInit_v2() { return 0; }
API nvmlShutdown() { return 0; }
API nvmlSystemGetDriverVersion(char *to, unsigned size) { return snprintf(to, size, "525.60.13"), 0; }
API nvmlSystemGetCudaDriverVersion_v2(int *version) { return driver<int (*)(int *)>("cuDriverGetVersion")(version); }
API nvmlDeviceGetCount_v2(unsigned *count) { return driver<int (*)(unsigned *)>("cuDeviceGetCount")(count); }
/// Numbered from 1 on.
API nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    return *device = reinterpret_cast<void *>(size_t(index) + 1), 0;
}
API nvmlDeviceGetName(void *device, char *name, unsigned size) {
    return driver<int (*)(char *, int, int)>("cuDeviceGetName")(name, int(size), number(device));
}
API nvmlDeviceGetUUID(void *device, char *to, unsigned size) {
    unsigned char id[16];
    driver<int (*)(unsigned char *, int)>("cuDeviceGetUuid")(id, number(device));
    int at = snprintf(to, size, "GPU-");
    for (int i = 0; i < 16; i++)
        at += snprintf(to + at, size - unsigned(at), i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
    return 0;
}
API nvmlDeviceGetMemoryInfo_v2(void *device, Memory *memory) {
    size_t total = 0;
    driver<int (*)(size_t *, int)>("cuDeviceTotalMem_v2")(&total, number(device));
    memory->total = total;
    memory->free = driver<size_t (*)(int)>("fake_cuda_free")(number(device));
    memory->used = memory->total - memory->free;
    return memory->reserved = 0, 0;
}

namespace {
constexpr int NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7;

bool mode(const char *name) {
    const char *wanted = getenv("FAKE_NVML");
    return wanted && !strcmp(wanted, name);
}
bool told() { return mode("live") || mode("hostile"); }

struct Process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

/// The program that asks, one that computes and draws, and one of which nothing is known.
int processes(unsigned *count, Process *to) {
    if (!told()) return NOT_SUPPORTED;
    const unsigned there = mode("hostile") ? 20000 : 3;
    const unsigned room = *count;
    *count = there;
    if (!to || room < there) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) to[i] = {4242 + i, ~0ull - i, ~0u, ~0u};
    to[0] = {unsigned(getpid()), 1500000000, ~0u, ~0u};
    if (mode("live")) to[1] = {4242, 2000000000, ~0u, ~0u}, to[2] = {4243, ~0ull, ~0u, ~0u};
    return 0;
}
}  // namespace

API nvmlDeviceGetUtilizationRates(void *, unsigned *rates) {
    if (!told()) return NOT_SUPPORTED;
    return rates[0] = mode("live") ? 97 : 4000000000u, rates[1] = 12, 0;
}
API nvmlDeviceGetTemperature(void *, int, unsigned *degrees) {
    return told() ? (*degrees = mode("live") ? 83 : 70000, 0) : NOT_SUPPORTED;
}
/// Hardware slowdown because of heat.
API nvmlDeviceGetCurrentClocksThrottleReasons(void *, unsigned long long *reasons) {
    return told() ? (*reasons = mode("live") ? 0x8 | 0x40 : ~0ull, 0) : NOT_SUPPORTED;
}
API nvmlDeviceGetComputeRunningProcesses_v3(void *, unsigned *count, Process *to) { return processes(count, to); }
API nvmlDeviceGetGraphicsRunningProcesses_v3(void *, unsigned *count, Process *to) { return processes(count, to); }
API nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size) {
    if (mode("live") && pid == 4243) return NOT_SUPPORTED;
    return snprintf(name, size, mode("live") ? "/usr/bin/blender" : "/tmp/\033[2J\xff\xfe"), 0;
}
