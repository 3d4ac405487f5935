// The CUDA driver's interface over the emulator: a libcuda.so.1 for machines without a GPU, so that what binds the driver
// is tested as it is. Whatever is given to a stream is done as late as may be: when the host waits for it, or another stream
// that the host waits for does. So what lacks an event finds, or overwrites, bytes of before. Work of a GPU that is lost is not
// done; who waits for it only in another GPU's stream does not hear of that. Allocations are exact and full of NaN.
//
// Environment: FAKE_CUDA_MODULES, the emulator's libraries of kernels, separated by colons, FAKE_CUDA_MODULES_61 and so on, those
// that PTX for this target takes instead; FAKE_CUDA_VERSION (12000);
// FAKE_CUDA_CONTEXT and FAKE_CUDA_MODULE (0), bytes that the context and a module take; FAKE_CUDA_RESETS (1), whether a reset
// mends a GPU that is lost; FAKE_CUDA_OTHERS, a file with the bytes that other programs have taken now, and FAKE_CUDA_LOSE,
// a file: where it is (and holds nothing, or not 0), the next launch finds the GPU lost, and FAKE_CUDA_SHUT, one: where it is,
// no context can be had; all may hold one number for each
// device, separated by commas; FAKE_CUDA_REFUSE, a file: where it is, no module
// is compiled;
// FAKE_CUDA_LATE (1), or else (0) work is done before the call returns that gives it;
// FAKE_CUDA_GRAPHS (1), whether there is memory for graphs, and FAKE_CUDA_GRAPH (0), bytes that one takes; FAKE_CUDA_COUNTS, a file that gets, whenever somebody waits, how
// many kernels were launched one by one, graphs made, nodes of them changed, graphs launched, copies from GPU to GPU, those
// through the driver's own memory and direct ones, and how often the host waited for something that was not done yet;
// FAKE_CUDA_OPENED, a file that gets how many contexts each GPU was given so far, separated by commas;
// FAKE_CUDA_PEERS, how GPUs copy from each other: not at all (0), through the driver's memory (1), directly (2), or directly, and
// what arrives is wrong (3), also only of more than 64 KiB (4), or the one that it comes from (5) or goes to (6) is lost at once;
// FAKE_CUDA_COMPILE (0), milliseconds that a module takes; FAKE_CUDA_DEVICES (as many as are named), up to four; of each of them FAKE_CUDA_CAPABILITY (86) and FAKE_CUDA_MEMORY, bytes, and
// FAKE_CUDA_LAUNCHES, after which it is lost (-1: never), and FAKE_CUDA_NAME, separated by commas, the last one for all that
// follow.
#include <dlfcn.h>
#include <unistd.h>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

namespace {
enum { SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE = 100, INVALID_CONTEXT = 201, INVALID_PTX = 218, INVALID_HANDLE = 400, NOT_FOUND = 500, ALREADY_ENABLED = 704, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801 };

typedef int (*Run)(const char *, const void *, size_t, const unsigned *, const unsigned *, size_t, uint64_t);

struct Module {
    std::string ptx;
};
struct Function {
    std::string name;
    size_t arguments;
    int target;
};

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
API cuStreamCreate(void **to, unsigned) {
    Guard guard;
    static long long last = 0;
    Stream *stream = new Stream{now(), ++last, {}};
    streams[stream->number] = stream;
    return now().handles++, *to = stream, ready();
}
API cuStreamDestroy_v2(void *gone) {
    Guard guard;
    Stream *stream = static_cast<Stream *>(gone);
    stream->catch_up();
    streams.erase(stream->number);
    return now().handles--, delete stream, SUCCESS;
}
API cuStreamSynchronize(void *stream) {
    Guard guard;
    if (int error = ready()) return error;
    counts.waits += static_cast<Stream *>(stream)->catch_up();
    const char *path = getenv("FAKE_CUDA_COUNTS");
    if (FILE *file = path ? fopen(path, "w") : nullptr) {
        fprintf(file, "%lld %lld %lld %lld ", counts.launched, counts.made, counts.changed, counts.graphs);
        fprintf(file, "%lld %lld %lld", counts.staged, counts.direct, counts.waits);
        fclose(file);
    }
    return ready();
}
API cuEventCreate(void **event, unsigned) {
    Guard guard;
    return now().handles++, *event = new Event{now()}, ready();
}
API cuEventDestroy_v2(void *event) {
    Guard guard;
    return now().handles--, delete static_cast<Event *>(event), SUCCESS;
}
API cuEventRecord(void *which, void *in) {
    Guard guard;
    Event &event = *static_cast<Event *>(which);
    Stream &stream = *static_cast<Stream *>(in);
    if (&event.device != &stream.device || &event.device != &now()) return INVALID_HANDLE;
    event.stream = stream.number, event.after = stream.given;
    return ready();
}
API cuEventSynchronize(void *event) {
    Guard guard;
    if (int error = ready()) return error;
    counts.waits += static_cast<Event *>(event)->catch_up();
    return ready();
}
/// Means the event as it was recorded last, of any GPU.
API cuStreamWaitEvent(void *stream, void *event, unsigned) {
    Guard guard;
    const Event recorded = *static_cast<Event *>(event);
    return give(stream, [recorded] { return recorded.catch_up(); });
}
API cuGetErrorName(int error, const char **name) {
    *name = error == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR";
    return SUCCESS;
}
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

/// Runs a kernel; afterwards the GPU may be lost.
static void run(const Node &n, Device &device) {
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

API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **) {
    Guard guard;
    counts.launched++;
    const Node n = node({function, {gx, gy, gz}, {bx, by, bz}, shared, arguments, nullptr, nullptr, nullptr});
    Device &device = now();
    return give(stream, [=, &device] { return run(n, device), true; });
}

API cuGraphCreate(void **graph, unsigned) {
    Guard guard;
    return now().handles++, *graph = new Graph, ready();
}
API cuGraphDestroy(void *graph) {
    Guard guard;
    return now().handles--, delete static_cast<Graph *>(graph), SUCCESS;
}
/// Nodes are numbered from 1 on; each depends on the one before, and on nothing else.
API cuGraphAddKernelNode_v2(void **to, void *graph, void **before, size_t count, const NodeParams *params) {
    Guard guard;
    if (int error = ready()) return error;
    std::vector<Node> &nodes = static_cast<Graph *>(graph)->nodes;
    if (nodes.empty() ? count != 0 : count != 1 || size_t(before[0]) != nodes.size()) return INVALID_VALUE;
    nodes.push_back(node(*params));
    return *to = reinterpret_cast<void *>(nodes.size()), SUCCESS;
}
API cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long) {
    Guard guard;
    if (int error = ready()) return error;
    if (!setting("FAKE_CUDA_GRAPHS", 1)) return OUT_OF_MEMORY;
    counts.made++;
    now().used += size_t(setting("FAKE_CUDA_GRAPH", 0));
    return now().handles++, *exec = new Graph(*static_cast<Graph *>(graph)), SUCCESS;
}
API cuGraphExecDestroy(void *exec) {
    Guard guard;
    return now().used -= size_t(setting("FAKE_CUDA_GRAPH", 0)), cuGraphDestroy(exec);
}
API cuGraphExecKernelNodeSetParams_v2(void *exec, void *which, const NodeParams *params) {
    Guard guard;
    if (int error = ready()) return error;
    std::vector<Node> &nodes = static_cast<Graph *>(exec)->nodes;
    const size_t number = size_t(which);
    if (number < 1 || number > nodes.size() || nodes[number - 1].function != params->function) return INVALID_VALUE;
    counts.changed++;
    return nodes[number - 1] = node(*params), SUCCESS;
}
/// With the arguments that its nodes have now.
API cuGraphLaunch(void *exec, void *stream) {
    Guard guard;
    counts.graphs++;
    Device &device = now();
    const std::vector<Node> nodes = static_cast<Graph *>(exec)->nodes;
    return give(stream, [=, &device] {
        for (const Node &n : nodes)
            if (!device.lost) run(n, device);
        return true;
    });
}
