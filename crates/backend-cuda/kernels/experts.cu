// Mixtures of experts: the choice, and the weighted sum. Their products are in matvec.cu.
#include "device.h"

struct RouteArgs {
    const float *logits;   // [n, experts]
    const float *bias;     // [experts] or null; for the choice only
    uint32_t *ids;         // [n, used]
    float *weights;        // [n, used]
    int32_t n, experts, used;
    int32_t gating;        // 0: softmax, 1: softmax of the chosen, 2: sigmoid
    int32_t normalize;
    int32_t groups, groups_used;
    float scale;
};

enum { SOFTMAX, SOFTMAX_OF_CHOSEN, SIGMOID_EACH };

/// Index of the largest of `count` values that is not taken, the lower one of equals; the same in all lanes.
DEVICE int best(const float *values, const uint8_t *taken, int count) {
    int index = count;
    for (int i = lane(); i < count; i += 32)
        if (!taken[i] && (index == count || values[i] > values[index])) index = i;
    for (int step = 16; step > 0; step /= 2) {
        const int other = __shfl_xor_sync(ALL_LANES, index, step);
        if (other == count) continue;
        if (index == count || values[other] > values[index] || (!(values[index] > values[other]) && other < index))
            index = other;
    }
    // Comparisons with NaN may have left lanes with different ones.
    return __shfl_sync(ALL_LANES, index, 0);
}

/// Softmax over `count` values in shared memory.
DEVICE void softmax(float *values, int count) {
    float largest = values[0], sum = 0;
    for (int i = lane(); i < count; i += 32) largest = fmaxf(largest, values[i]);
    largest = warp_max(largest);
    __syncwarp();
    for (int i = lane(); i < count; i += 32) {
        values[i] = expf(values[i] - largest);
        sum += values[i];
    }
    sum = warp_sum(sum);
    for (int i = lane(); i < count; i += 32) values[i] /= sum;
    __syncwarp();
}

/// Leaves only the experts of the best groups; a group counts as its two best.
DEVICE void choose_groups(const RouteArgs &a, const float *keys, uint8_t *taken, float *group_keys, uint8_t *group_taken) {
    const int size = a.experts / a.groups;
    for (int g = lane(); g < a.groups; g += 32) {
        float first = keys[g * size], second = MINUS_INFINITY;
        for (int i = 1; i < size; i++) {
            const float key = keys[g * size + i];
            second = key > first ? first : key > second ? key : second;
            first = key > first ? key : first;
        }
        group_keys[g] = size > 1 ? first + second : first;
        group_taken[g] = 0;
    }
    for (int i = lane(); i < a.experts; i += 32) taken[i] = 1;
    __syncwarp();
    for (int k = 0; k < a.groups_used; k++) {
        const int group = best(group_keys, group_taken, a.groups);
        __syncwarp();
        if (lane() == 0) group_taken[group] = 1;
        for (int i = lane(); i < size; i += 32) taken[group * size + i] = 0;
        __syncwarp();
    }
}

// A warp has a token. Shared: scores, keys, shares, keys of groups (f32 [experts] each), then both lists of flags.
KERNEL(route, RouteArgs, 32) {
    DYNAMIC_SHARED(float, scores);
    float *keys = scores + a.experts, *shares = keys + a.experts, *group_keys = shares + a.experts;
    uint8_t *taken = reinterpret_cast<uint8_t *>(group_keys + a.experts), *group_taken = taken + a.experts;
    const float *logits = a.logits + int64_t(blockIdx.x) * a.experts;
    for (int i = lane(); i < a.experts; i += 32) {
        scores[i] = a.gating == SIGMOID_EACH ? 1.0f / (1.0f + expf(-logits[i])) : logits[i];
        taken[i] = 0;
    }
    __syncwarp();
    if (a.gating == SOFTMAX) softmax(scores, a.experts);
    for (int i = lane(); i < a.experts; i += 32) keys[i] = scores[i] + (a.bias ? a.bias[i] : 0.0f);
    __syncwarp();
    if (a.groups > 1) choose_groups(a, keys, taken, group_keys, group_taken);
    uint32_t *ids = a.ids + int64_t(blockIdx.x) * a.used;
    for (int k = 0; k < a.used; k++) {
        const int expert = best(keys, taken, a.experts);
        __syncwarp();
        if (lane() == 0) {
            taken[expert] = 1;
            ids[k] = uint32_t(expert);
            shares[k] = scores[expert];
        }
        __syncwarp();
    }
    if (a.gating == SOFTMAX_OF_CHOSEN) softmax(shares, a.used);
    float sum = 0;
    for (int k = 0; k < a.used; k++) sum += shares[k];
    // Sums this small only come from logits that say nothing.
    const float divisor = !a.normalize ? 1.0f : sum < 1.17549435e-38f ? 1.17549435e-38f : sum;
    for (int k = lane(); k < a.used; k += 32)
        a.weights[int64_t(blockIdx.x) * a.used + k] = shares[k] / divisor * a.scale;
}

struct CombineArgs {
    const float *input;     // [n, used, dim]
    const float *weights;   // [n, used]
    float *out;             // [n, dim]
    int32_t n, used, dim;
    int32_t unused;
};

KERNEL(combine, CombineArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= int64_t(a.n) * a.dim) return;
    const int64_t token = index / a.dim, i = index % a.dim;
    float sum = 0;
    for (int s = 0; s < a.used; s++) sum = fmaf(a.weights[token * a.used + s], a.input[(token * a.used + s) * a.dim + i], sum);
    a.out[index] = sum;
}
