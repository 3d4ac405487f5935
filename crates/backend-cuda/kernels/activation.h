// Activation functions (crates/backend/src/ops.rs, in the order of the Rust side's codes).
#pragma once
#include "device.h"

enum { SILU, GELU_TANH, RELU2, SIGMOID, CLAMPED_SWIGLU };

/// GELU as ggml computes it, from a table of f16: see backend-cpu.
DEVICE float gelu(float x) {
    if (fabsf(x) >= 10.0f) return fmaxf(x, 0.0f);
    const float y = half_to_float(float_to_half(x));
    const float inner = 0.7978846f * y * (1.0f + 0.044715f * y * y);
    return half_to_float(float_to_half(0.5f * y * (1.0f + tanhf(inner))));
}

DEVICE float activate(int act, float alpha, float limit, float x) {
    switch (act) {
    case SILU: return x / (1.0f + expf(-x));
    // max would swallow NaN.
    case RELU2: return x <= 0 ? 0.0f : x * x;
    case SIGMOID: return 1.0f / (1.0f + expf(-x));
    case GELU_TANH: return x != x ? x : gelu(x);
    default: {
        const float clamped = x > limit ? limit : x;
        return clamped / (1.0f + expf(-alpha * clamped));
    }
    }
}
