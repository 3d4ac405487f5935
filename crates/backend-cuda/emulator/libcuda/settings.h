// What the environment says of the fake driver. What is for devices are values for each of them, separated by commas, the last
// one for all that follow.
//
// Of the machine:
//   FAKE_CUDA_VERSION (12000)
//   FAKE_CUDA_DEVICES (as many as the first three of these name), up to four; of each of them:
//   FAKE_CUDA_CAPABILITY (86), FAKE_CUDA_MEMORY, bytes, FAKE_CUDA_LAUNCHES, after which it is lost (-1: never), FAKE_CUDA_NAME
//   FAKE_CUDA_CONTEXT, FAKE_CUDA_MODULE, FAKE_CUDA_GRAPH (0), bytes that a context, a module and a graph take
//   FAKE_CUDA_GRAPHS (1), whether there is memory for graphs
//   FAKE_CUDA_RESETS (1), whether a reset mends a GPU that is lost
//   FAKE_CUDA_COMPILE (0), milliseconds that a module takes
//   FAKE_CUDA_LATE (1), or else (0) work is done before the call returns that gives it
//   FAKE_CUDA_PEERS (1), how GPUs copy from each other: not at all (0), through the driver's memory (1), directly (2), or
//   directly, and what arrives is wrong (3), also only of more than 64 KiB (4), or the one that it comes from (5) or goes to (6)
//   is lost at once
// Kernels: FAKE_CUDA_MODULES, the emulator's libraries of them, separated by colons, and FAKE_CUDA_MODULES_61 and so on, those that
//   PTX for this target takes instead
// Files that may come and go while a program runs; those of devices may hold one number for each:
//   FAKE_CUDA_OTHERS, bytes that other programs have taken now
//   FAKE_CUDA_LOSE: where it is (and holds nothing, or not 0), the next launch finds the GPU lost
//   FAKE_CUDA_SHUT: where it is, no context can be had
//   FAKE_CUDA_REFUSE: where it is, no module is compiled
// Files that it writes:
//   FAKE_CUDA_COUNTS, whenever somebody waits: how many kernels were launched one by one, graphs made, nodes of them changed,
//   graphs launched, copies from GPU to GPU, those through the driver's own memory and direct ones, and how often the host
//   waited for something that was not done yet
//   FAKE_CUDA_OPENED, how many contexts each GPU was given so far, separated by commas
#pragma once
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {
long long setting(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text ? atoll(text) : otherwise;
}

/// The part of a text that is for one device.
long long part(const char *text, int device) {
    for (; device > 0 && strchr(text, ','); device--) text = strchr(text, ',') + 1;
    return atoll(text);
}

/// What a file says of one device; where it says nothing of it, but is there, `empty`.
long long of_file(const char *name, long long absent, long long empty, int device) {
    const char *path = getenv(name);
    FILE *file = path ? fopen(path, "r") : nullptr;
    if (!file) return absent;
    char text[256];
    const size_t read = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[read] = 0;
    return read ? part(text, device) : empty;
}

/// The part of a setting that is for one device.
long long of_device(const char *name, long long otherwise, int device) {
    const char *text = getenv(name);
    return text ? part(text, device) : otherwise;
}

/// How many devices there are: by default as many as another setting names.
int device_count() {
    int named = 1;
    for (const char *name : {"FAKE_CUDA_CAPABILITY", "FAKE_CUDA_MEMORY", "FAKE_CUDA_LAUNCHES"}) {
        int parts = 1;
        for (const char *at = getenv(name); at && (at = strchr(at, ',')); at++) parts++;
        if (parts > named) named = parts;
    }
    return int(setting("FAKE_CUDA_DEVICES", named));
}

/// Whether the file that a variable names is there now.
bool there(const char *name) {
    const char *path = getenv(name);
    return path && access(path, F_OK) == 0;
}

size_t memory(int device) { return size_t(of_device("FAKE_CUDA_MEMORY", 8ll << 30, device)); }
}  // namespace
