// Transforms on their own: a block has a block of values in shared memory.
#include "hadamard.h"
#include "rounding.h"

struct HadamardArgs {
    float *x;
    Activations *rounded;   // of the result, or null; if not, blocks are whole blocks of 32
    int32_t block;          // a power of two
    float scale;            // 1 / sqrt(block)
};

KERNEL(hadamard, HadamardArgs, 256) {
    DYNAMIC_SHARED(float, values);   // [block]
    const int64_t start = int64_t(blockIdx.x) * a.block;
    transform<false>(a.x + start, values, a.block, a.scale);
    if (!a.rounded) return;
    // Every thread has written what it reads.
    for (int i = threadIdx.x; i < a.block; i += blockDim.x) round_to(a.rounded[(start + i) / 32], a.x[start + i]);
}
