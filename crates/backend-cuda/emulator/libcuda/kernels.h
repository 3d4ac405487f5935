// Modules, their kernels, and launches of these.
#pragma once
#include <dlfcn.h>
#include <string>
#include <vector>
#include "state.h"

namespace {
typedef int (*Run)(const char *, const void *, size_t, const unsigned *, const unsigned *, size_t, uint64_t);

struct Module {
    std::string ptx;
};
struct Function {
    std::string name;
    size_t arguments;
    int target;
};

/// The libraries that a variable names.
std::vector<Run> load(const char *name) {
    std::vector<Run> found;
    std::string paths = getenv(name) ? getenv(name) : "";
    for (size_t at = 0; at < paths.size();) {
        size_t end = paths.find(':', at);
        if (end == std::string::npos) end = paths.size();
        void *library = dlopen(paths.substr(at, end - at).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            fprintf(stderr, "libcuda: %s\n", dlerror());
            abort();
        }
        found.push_back(Run(dlsym(library, "emulator_launch")));
        at = end + 1;
    }
    return found;
}

/// Where kernels for a target are looked for, in its own libraries first.
const std::vector<Run> &libraries(int target) {
    static std::map<int, std::vector<Run>> all;
    const auto known = all.find(target);
    if (known != all.end()) return known->second;
    std::vector<Run> found = load(("FAKE_CUDA_MODULES_" + std::to_string(target)).c_str());
    for (Run run : load("FAKE_CUDA_MODULES")) found.push_back(run);
    return all[target] = found;
}

/// A launch, with its arguments copied.
struct Node {
    Function *function;
    unsigned grid[3], block[3], shared;
    std::string arguments;
};

/// As the driver's header has it.
struct NodeParams {
    void *function;
    unsigned grid[3], block[3], shared;
    void **arguments, **extra;
    void *kernel, *context;
};

Node node(const NodeParams &p) {
    Node n{static_cast<Function *>(p.function), {}, {}, p.shared, {}};
    memcpy(n.grid, p.grid, sizeof n.grid);
    memcpy(n.block, p.block, sizeof n.block);
    n.arguments.assign(static_cast<char *>(p.arguments[0]), n.function->arguments);
    return n;
}

/// Runs a kernel; afterwards the GPU may be lost.
void run(const Node &n, Device &device) {
    const int which = number(device);
    device.lost |= device.launches++ == of_device("FAKE_CUDA_LAUNCHES", -1, which) || of_file("FAKE_CUDA_LOSE", 0, 1, which);
    if (device.lost) return;
    alignas(8) char arguments[512];
    if (n.arguments.size() > sizeof arguments) abort();
    memcpy(arguments, n.arguments.data(), n.arguments.size());
    for (Run run : libraries(n.function->target)) {
        const int result = run(n.function->name.c_str(), arguments, n.arguments.size(), n.grid, n.block, n.shared, 0);
        if (result == 0) return;
        if (result != 1) {
            fprintf(stderr, "libcuda: %s does not take what it is given (%d)\n", n.function->name.c_str(), result);
            abort();
        }
    }
    fprintf(stderr, "libcuda: no library has %s\n", n.function->name.c_str());
    abort();
}
}  // namespace

API cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void *) {
    if (int error = ready()) return error;
    if (there("FAKE_CUDA_REFUSE")) return INVALID_PTX;
    usleep(useconds_t(1000 * setting("FAKE_CUDA_COMPILE", 0)));
    Guard guard;
    const std::string ptx(static_cast<const char *>(image));
    if (ptx.find(".version 8.0") == std::string::npos) return INVALID_PTX;
    now().used += size_t(setting("FAKE_CUDA_MODULE", 0));
    return now().handles++, *module = new Module{ptx}, SUCCESS;
}
API cuModuleUnload(void *module) {
    Guard guard;
    return now().used -= size_t(setting("FAKE_CUDA_MODULE", 0)), now().handles--, delete static_cast<Module *>(module), SUCCESS;
}
/// The kernel must be in the PTX, which says how large its argument is.
API cuModuleGetFunction(void **function, void *module, const char *name) {
    Guard guard;
    static std::vector<Function *> kept;
    const std::string &ptx = static_cast<Module *>(module)->ptx;
    const size_t at = ptx.find(".entry " + std::string(name) + "("), size = ptx.find('[', at);
    if (at == std::string::npos || size == std::string::npos) return NOT_FOUND;
    const std::string word = "\n.target sm_";
    const size_t target = ptx.find(word);
    if (target == std::string::npos) return INVALID_PTX;
    kept.push_back(new Function{name, size_t(atoi(ptx.c_str() + size + 1)), atoi(ptx.c_str() + target + word.size())});
    return *function = kept.back(), SUCCESS;
}
API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **) {
    Guard guard;
    counts.launched++;
    const Node n = node({function, {gx, gy, gz}, {bx, by, bz}, shared, arguments, nullptr, nullptr, nullptr});
    Device &device = now();
    return give(stream, [=, &device] { return run(n, device), true; });
}
