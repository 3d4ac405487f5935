// A short causal convolution of each channel over time.
#include "activation.h"

struct ConvArgs {
    const float *input;    // [n, channels]
    const float *weight;   // [channels, kernel]
    const float *bias;     // [channels] or null
    const float *before;   // [kernel - 1, channels] or null: the rows before the first are 0
    float *after;          // [kernel - 1, channels]
    float *out;            // [n, channels]
    int32_t n, channels, kernel;
    int32_t act;           // -1: none
    float alpha, limit;
};

/// Value of channel `c` in row `t` of the old state followed by the input; false where there is nothing.
DEVICE bool row_value(const ConvArgs &a, int64_t t, int c, float &value) {
    const int kept = a.kernel - 1;
    if (t < kept && !a.before) return false;
    value = t < kept ? a.before[t * a.channels + c] : a.input[(t - kept) * a.channels + c];
    return true;
}

// A thread has a value of the result or, after those, of the new state.
KERNEL(conv, ConvArgs, 256) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= int64_t(a.n + a.kernel - 1) * a.channels) return;
    const int64_t t = index / a.channels;
    const int c = int(index % a.channels);
    float value;
    if (t >= a.n) {
        a.after[(t - a.n) * a.channels + c] = row_value(a, t, c, value) ? value : 0.0f;
        return;
    }
    float sum = a.bias ? a.bias[c] : 0.0f;
    for (int j = 0; j < a.kernel; j++)
        if (row_value(a, t + j, c, value)) sum += a.weight[int64_t(c) * a.kernel + j] * value;
    a.out[index] = a.act < 0 ? sum : activate(a.act, a.alpha, a.limit, sum);
}
