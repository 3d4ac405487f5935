// New rows of K and V into their cells, where heads.cu has not stored them.
#include "store.h"

struct StoreKvArgs {
    Stream k, v;
    const float *k_input, *v_input;   // [n, heads, dim]
    int32_t n, heads, capacity, start;
};

// Blocks: x a token, y a head, z K or V; whole warps.
KERNEL(store_kv, StoreKvArgs, 256) {
    const Stream s = blockIdx.z == 0 ? a.k : a.v;
    const float *input = (blockIdx.z == 0 ? a.k_input : a.v_input) + (int64_t(blockIdx.x) * a.heads + blockIdx.y) * s.dim;
    const int cell = int((int64_t(a.start) + blockIdx.x) % a.capacity);
    store_row(s, input, s.cells + (int64_t(blockIdx.y) * a.capacity + cell) * s.row_bytes, threadIdx.x, blockDim.x);
}
