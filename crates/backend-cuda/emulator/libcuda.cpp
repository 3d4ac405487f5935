// The CUDA driver's interface over the emulator: a libcuda.so.1 for machines without a GPU, so that what binds the driver
// is tested as it is. Work is done before a call returns, but copies from pinned memory in a stream that has launched nothing are
// done as late as may be: when somebody waits for them. Allocations are exact and full of NaN.
//
// Environment: FAKE_CUDA_MODULES, the emulator's libraries of kernels, separated by colons, FAKE_CUDA_OLD_MODULES, those that
// PTX for old GPUs takes instead; FAKE_CUDA_VERSION (12000);
// FAKE_CUDA_CONTEXT and FAKE_CUDA_MODULE (0), bytes that the context and a module take; FAKE_CUDA_RESETS (1), whether a reset
// mends a GPU that is lost; FAKE_CUDA_OTHERS, a file with the bytes that other programs have taken now, and FAKE_CUDA_LOSE,
// a file: where it is (and holds nothing, or not 0), the next launch finds the GPU lost; both may hold one number for each
// device, separated by commas; FAKE_CUDA_REFUSE, a file: where it is, no module
// is compiled;
// FAKE_CUDA_GRAPHS (1), whether there is memory for graphs, and FAKE_CUDA_GRAPH (0), bytes that one takes; FAKE_CUDA_COUNTS, a file that gets, whenever somebody waits, how
// many kernels were launched one by one, graphs made, nodes of them changed, graphs launched, and copies from GPU to GPU, those
// through the driver's own memory and direct ones;
// FAKE_CUDA_PEERS, how GPUs copy from each other: not at all (0), through the driver's memory (1), directly (2), or directly, and
// what arrives is wrong (3), also only of more than 64 KiB (4), or the one that it comes from (5) or goes to (6) is lost at once;
// FAKE_CUDA_COMPILE (0), milliseconds that a module takes; FAKE_CUDA_DEVICES (as many as are named), up to four; of each of them FAKE_CUDA_CAPABILITY (86) and FAKE_CUDA_MEMORY, bytes, and
// FAKE_CUDA_LAUNCHES, after which it is lost (-1: never), and FAKE_CUDA_NAME, separated by commas, the last one for all that
// follow.
#include <dlfcn.h>
#include <unistd.h>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

namespace {
enum { SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE = 100, INVALID_CONTEXT = 201, INVALID_PTX = 218, NOT_FOUND = 500, ALREADY_ENABLED = 704, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801 };

typedef int (*Run)(const char *, const void *, size_t, const unsigned *, const unsigned *, size_t, uint64_t);

struct Module {
    std::string ptx;
};
struct Function {
    std::string name;
    size_t arguments;
    bool old;
};

struct {
    long long launched, made, changed, graphs, staged, direct;
} counts;

/// What waits in a stream that has launched nothing yet.
struct Stream {
    std::vector<std::function<void()>> late;
    bool launched = false;
    void catch_up() {
        std::vector<std::function<void()>> now;
        now.swap(late);
        for (auto &work : now) work();
    }
    void launch() { launched = true, catch_up(); }
};
/// Where it was recorded last.
struct Event {
    Stream *stream = nullptr;
};

/// A GPU; its context is its address.
struct Device {
    std::map<uint64_t, size_t> allocations;
    std::map<void *, size_t> pinned;
    std::set<Stream *> streams;
    /// GPUs whose memory it reaches.
    std::set<void *> reached;
    size_t used = 0;
    int handles = 0, contexts = 0;
    long long launches = 0;
    bool lost = false;
} devices[4];
thread_local void *current = nullptr;

/// The one whose context is current; calls without one go to the first, which has then no context.
Device &now() { return current ? *static_cast<Device *>(current) : devices[0]; }
int number(const Device &device) { return int(&device - devices); }

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

size_t free_memory() {
    const size_t others = size_t(of_file("FAKE_CUDA_OTHERS", 0, 0, number(now())));
    const size_t gone = now().used + others, all = memory(number(now()));
    return gone < all ? all - gone : 0;
}

int ready() { return now().lost ? LAUNCH_FAILED : !current || !now().contexts ? INVALID_CONTEXT : SUCCESS; }

bool inside(uint64_t start, size_t bytes, Device &device = now()) {
    auto after = device.allocations.upper_bound(start);
    if (after == device.allocations.begin()) return false;
    --after;
    return start + bytes <= after->first + after->second;
}

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

/// Where kernels are looked for, for old GPUs in their own libraries first.
const std::vector<Run> &libraries(bool old) {
    static std::vector<Run> all[2] = {load("FAKE_CUDA_MODULES"), [] {
        std::vector<Run> first = load("FAKE_CUDA_OLD_MODULES");
        for (Run run : load("FAKE_CUDA_MODULES")) first.push_back(run);
        return first;
    }()};
    return all[old];
}
}  // namespace

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
    Device &device = devices[number];
    if (device.lost) return LAUNCH_FAILED;
    if (device.contexts++ == 0) device.used += size_t(setting("FAKE_CUDA_CONTEXT", 0));
    return *to = &device, SUCCESS;
}
API cuDevicePrimaryCtxReset_v2(int number) {
    if (!setting("FAKE_CUDA_RESETS", 1)) return LAUNCH_FAILED;
    Device &device = devices[number];
    for (auto &allocation : device.allocations) free(reinterpret_cast<void *>(allocation.first));
    for (auto &memory : device.pinned) free(memory.first);
    for (Stream *stream : device.streams) stream->late.clear();
    const int contexts = device.contexts;
    const long long launches = device.launches;
    device = Device();
    device.contexts = contexts;
    device.launches = launches;
    return device.used = size_t(setting("FAKE_CUDA_CONTEXT", 0)), SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int number) {
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
API cuMemGetInfo_v2(size_t *free, size_t *total) { return *total = memory(number(now())), *free = free_memory(), ready(); }
API cuMemAlloc_v2(uint64_t *start, size_t bytes) {
    if (int error = ready()) return error;
    if (!bytes) return INVALID_VALUE;
    if (bytes > free_memory()) return OUT_OF_MEMORY;
    void *p = aligned_alloc(512, (bytes + 511) / 512 * 512);
    memset(p, 0xff, bytes);
    now().allocations[*start = uint64_t(p)] = bytes;
    now().used += bytes;
    return SUCCESS;
}
API cuMemFree_v2(uint64_t start) {
    if (int error = ready()) return error;
    for (Stream *stream : now().streams) stream->catch_up();
    auto found = now().allocations.find(start);
    if (found == now().allocations.end()) return INVALID_VALUE;
    now().used -= found->second;
    free(reinterpret_cast<void *>(start));
    now().allocations.erase(found);
    return SUCCESS;
}
API cuMemHostAlloc(void **to, size_t bytes, unsigned) {
    if (int error = ready()) return error;
    now().pinned[*to = malloc(bytes)] = bytes;
    return SUCCESS;
}
API cuMemFreeHost(void *p) { return now().pinned.erase(p) ? free(p), SUCCESS : INVALID_VALUE; }
API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    if (int error = ready()) return error;
    if (!inside(to, bytes)) return INVALID_VALUE;
    auto pinned = now().pinned.upper_bound(const_cast<void *>(from));
    const bool is_pinned = pinned != now().pinned.begin() && static_cast<const char *>(from) + bytes <= static_cast<char *>((--pinned)->first) + pinned->second;
    if (Stream *late = static_cast<Stream *>(stream); late && !late->launched && is_pinned) {
        late->late.push_back([=] { memcpy(reinterpret_cast<void *>(to), from, bytes); });
        return SUCCESS;
    }
    if (stream) static_cast<Stream *>(stream)->catch_up();
    return memcpy(reinterpret_cast<void *>(to), from, bytes), SUCCESS;
}
API cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr); }
API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    if (int error = ready()) return error;
    if (stream) static_cast<Stream *>(stream)->catch_up();
    if (!inside(from, bytes)) return INVALID_VALUE;
    return memcpy(to, reinterpret_cast<void *>(from), bytes), SUCCESS;
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    if (int error = ready()) return error;
    if (stream) static_cast<Stream *>(stream)->catch_up();
    if (!inside(from, bytes) || !inside(to, bytes)) return INVALID_VALUE;
    return memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes), SUCCESS;
}
API cuDeviceCanAccessPeer(int *can, int device, int peer) {
    if (device == peer) return INVALID_VALUE;
    return *can = setting("FAKE_CUDA_PEERS", 1) >= 2, SUCCESS;
}
API cuCtxEnablePeerAccess(void *peer, unsigned flags) {
    if (int error = ready()) return error;
    if (flags || peer == current || setting("FAKE_CUDA_PEERS", 1) < 2) return INVALID_VALUE;
    return now().reached.insert(peer).second ? SUCCESS : ALREADY_ENABLED;
}
/// Waits for nothing but what is in the stream before.
API cuMemcpyPeerAsync(uint64_t to, void *here, uint64_t from, void *there, size_t bytes, void *stream) {
    if (int error = ready()) return error;
    Device &source = *static_cast<Device *>(there);
    if (source.lost) return LAUNCH_FAILED;
    if (here != current || here == there || !inside(to, bytes) || !inside(from, bytes, source)) return INVALID_VALUE;
    const long long how = setting("FAKE_CUDA_PEERS", 1);
    if (how == 0) return NOT_SUPPORTED;
    if (how >= 5) return (how == 5 ? source : now()).lost = true, LAUNCH_FAILED;
    const bool direct = now().reached.count(there);
    ++(direct ? counts.direct : counts.staged);
    auto copy = [=] {
        memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
        if (direct && (how == 3 || (how == 4 && bytes > 65536))) *reinterpret_cast<char *>(to + bytes / 2) ^= 1;
    };
    Stream *late = static_cast<Stream *>(stream);
    if (!late->launched) return late->late.push_back(copy), SUCCESS;
    late->catch_up();
    return copy(), SUCCESS;
}
API cuMemsetD8Async(uint64_t start, unsigned char value, size_t bytes, void *stream) {
    if (int error = ready()) return error;
    if (stream) static_cast<Stream *>(stream)->catch_up();
    if (!inside(start, bytes)) return INVALID_VALUE;
    return memset(reinterpret_cast<void *>(start), value, bytes), SUCCESS;
}
API cuStreamCreate(void **to, unsigned) {
    Stream *stream = new Stream;
    now().streams.insert(stream);
    return now().handles++, *to = stream, ready();
}
API cuStreamDestroy_v2(void *gone) {
    Stream *stream = static_cast<Stream *>(gone);
    if (!now().lost) stream->catch_up();
    now().streams.erase(stream);
    return now().handles--, delete stream, SUCCESS;
}
API cuStreamSynchronize(void *stream) {
    if (int error = ready()) return error;
    static_cast<Stream *>(stream)->catch_up();
    const char *path = getenv("FAKE_CUDA_COUNTS");
    if (FILE *file = path ? fopen(path, "w") : nullptr) {
        fprintf(file, "%lld %lld %lld %lld ", counts.launched, counts.made, counts.changed, counts.graphs);
        fprintf(file, "%lld %lld", counts.staged, counts.direct);
        fclose(file);
    }
    return ready();
}
API cuEventCreate(void **event, unsigned) { return now().handles++, *event = new Event, ready(); }
API cuEventDestroy_v2(void *event) { return now().handles--, delete static_cast<Event *>(event), SUCCESS; }
API cuEventRecord(void *event, void *stream) { return static_cast<Event *>(event)->stream = static_cast<Stream *>(stream), ready(); }
/// An event that was recorded comes when all that is in its stream now has ended: later than it must, never earlier.
static int wait(void *event) {
    if (int error = ready()) return error;
    Stream *stream = static_cast<Event *>(event)->stream;
    if (now().streams.count(stream)) stream->catch_up();
    return SUCCESS;
}
API cuEventSynchronize(void *event) { return wait(event); }
/// Streams with launches do nothing late: what they wait for is done at once. Others need not wait for those.
API cuStreamWaitEvent(void *, void *event, unsigned) { return wait(event); }
API cuGetErrorName(int error, const char **name) {
    *name = error == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR";
    return SUCCESS;
}
API cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void *) {
    if (int error = ready()) return error;
    if (there("FAKE_CUDA_REFUSE")) return INVALID_PTX;
    usleep(useconds_t(1000 * setting("FAKE_CUDA_COMPILE", 0)));
    const std::string ptx(static_cast<const char *>(image));
    if (ptx.find(".version 8.0") == std::string::npos) return INVALID_PTX;
    now().used += size_t(setting("FAKE_CUDA_MODULE", 0));
    return now().handles++, *module = new Module{ptx}, SUCCESS;
}
API cuModuleUnload(void *module) { return now().used -= size_t(setting("FAKE_CUDA_MODULE", 0)), now().handles--, delete static_cast<Module *>(module), SUCCESS; }
/// The kernel must be in the PTX, which says how large its argument is.
API cuModuleGetFunction(void **function, void *module, const char *name) {
    static std::vector<Function *> kept;
    const std::string &ptx = static_cast<Module *>(module)->ptx;
    const size_t at = ptx.find(".entry " + std::string(name) + "("), size = ptx.find('[', at);
    if (at == std::string::npos || size == std::string::npos) return NOT_FOUND;
    const bool old = ptx.find(".target sm_61") != std::string::npos;
    kept.push_back(new Function{name, size_t(atoi(ptx.c_str() + size + 1)), old});
    return *function = kept.back(), SUCCESS;
}
/// A launch, with its arguments copied.
struct Node {
    Function *function;
    unsigned grid[3], block[3], shared;
    std::string arguments;
};
struct Graph {
    std::vector<Node> nodes;
};

/// As the driver's header has it.
struct NodeParams {
    void *function;
    unsigned grid[3], block[3], shared;
    void **arguments, **extra;
    void *kernel, *context;
};

static Node node(const NodeParams &p) {
    Node n{static_cast<Function *>(p.function), {}, {}, p.shared, {}};
    memcpy(n.grid, p.grid, sizeof n.grid);
    memcpy(n.block, p.block, sizeof n.block);
    n.arguments.assign(static_cast<char *>(p.arguments[0]), n.function->arguments);
    return n;
}

static int run(const Node &n) {
    if (int error = ready()) return error;
    const int device = number(now());
    if (now().launches++ == of_device("FAKE_CUDA_LAUNCHES", -1, device)) return now().lost = true, LAUNCH_FAILED;
    if (of_file("FAKE_CUDA_LOSE", 0, 1, device)) return now().lost = true, LAUNCH_FAILED;
    alignas(8) char arguments[512];
    if (n.arguments.size() > sizeof arguments) abort();
    memcpy(arguments, n.arguments.data(), n.arguments.size());
    for (Run run : libraries(n.function->old)) {
        const int result = run(n.function->name.c_str(), arguments, n.arguments.size(), n.grid, n.block, n.shared, 0);
        if (result == 0) return SUCCESS;
        if (result != 1) {
            fprintf(stderr, "libcuda: %s does not take what it is given (%d)\n", n.function->name.c_str(), result);
            abort();
        }
    }
    return NOT_FOUND;
}

API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **) {
    counts.launched++;
    static_cast<Stream *>(stream)->launch();
    return run(node({function, {gx, gy, gz}, {bx, by, bz}, shared, arguments, nullptr, nullptr, nullptr}));
}

API cuGraphCreate(void **graph, unsigned) { return now().handles++, *graph = new Graph, ready(); }
API cuGraphDestroy(void *graph) { return now().handles--, delete static_cast<Graph *>(graph), SUCCESS; }
/// Nodes are numbered from 1 on; each depends on the one before, and on nothing else.
API cuGraphAddKernelNode_v2(void **to, void *graph, void **before, size_t count, const NodeParams *params) {
    if (int error = ready()) return error;
    std::vector<Node> &nodes = static_cast<Graph *>(graph)->nodes;
    if (nodes.empty() ? count != 0 : count != 1 || size_t(before[0]) != nodes.size()) return INVALID_VALUE;
    nodes.push_back(node(*params));
    return *to = reinterpret_cast<void *>(nodes.size()), SUCCESS;
}
API cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long) {
    if (int error = ready()) return error;
    if (!setting("FAKE_CUDA_GRAPHS", 1)) return OUT_OF_MEMORY;
    counts.made++;
    now().used += size_t(setting("FAKE_CUDA_GRAPH", 0));
    return now().handles++, *exec = new Graph(*static_cast<Graph *>(graph)), SUCCESS;
}
API cuGraphExecDestroy(void *exec) { return now().used -= size_t(setting("FAKE_CUDA_GRAPH", 0)), cuGraphDestroy(exec); }
API cuGraphExecKernelNodeSetParams_v2(void *exec, void *which, const NodeParams *params) {
    if (int error = ready()) return error;
    std::vector<Node> &nodes = static_cast<Graph *>(exec)->nodes;
    const size_t number = size_t(which);
    if (number < 1 || number > nodes.size() || nodes[number - 1].function != params->function) return INVALID_VALUE;
    counts.changed++;
    return nodes[number - 1] = node(*params), SUCCESS;
}
API cuGraphLaunch(void *exec, void *stream) {
    counts.graphs++;
    static_cast<Stream *>(stream)->launch();
    for (const Node &n : static_cast<Graph *>(exec)->nodes)
        if (int error = run(n)) return error;
    return SUCCESS;
}
