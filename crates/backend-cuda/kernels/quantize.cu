// Activations rounded to 8 bits, once for all matrices that read them, where what made them has not done so.
#include "rounding.h"

struct QuantizeArgs {
    const float *input;    // [blocks, 32]
    Activations *out;      // [blocks]
    int64_t blocks;
};

// A warp has a block.
KERNEL(quantize, QuantizeArgs, 256) {
    const int64_t block = int64_t(blockIdx.x) * 8 + threadIdx.x / 32;
    if (block < a.blocks) round_to(a.out[block], a.input[block * 32 + lane()]);
}
