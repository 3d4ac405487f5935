// Graphs: chains of launches.
#pragma once
#include "kernels.h"

namespace {
struct Graph {
    std::vector<Node> nodes;
};
}  // namespace

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
