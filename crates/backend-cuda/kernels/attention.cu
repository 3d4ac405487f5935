// Attention by online softmax over tiles of cells (Dao et al. 2022, arXiv 2205.14135).
//
// Cells are cut into splits of SPLIT at multiples of SPLIT, each of which has a softmax of its own; splits are merged in
// order. A block takes all splits one after the other (prompts), or one split each, merged by a second kernel (generation,
// where there are too few queries to keep a GPU busy). Both do the same arithmetic, so a row's result depends neither on
// the choice nor on the rows beside it.
#if __CUDA_ARCH__ >= 750
#include "attention_tensor.h"

#define ATTENTION(tiles, slices) \
    KERNEL_WIDE(attention_tensor_##tiles##_##slices, AttentionArgs, 32 * WARPS) { attention<tiles, slices>(a); }
ATTENTION(1, 1)
ATTENTION(4, 1)
ATTENTION(1, 2)
ATTENTION(2, 2)
ATTENTION(1, 4)
ATTENTION(2, 4)
ATTENTION(1, 8)
#else
#include "attention_lanes.h"

#define ATTENTION(queries, values) \
    KERNEL_WIDE(attention_##queries##_##values, AttentionArgs, 32 * WARPS) { attention<queries, values>(a); }
ATTENTION(1, 2)
ATTENTION(4, 2)
ATTENTION(1, 4)
ATTENTION(4, 4)
ATTENTION(1, 8)
ATTENTION(2, 8)
ATTENTION(1, 16)
#endif

// Merges splits. Blocks: x a row, y a head; a thread has a value.
KERNEL(merge_splits, AttentionArgs, 512) {
    const int d = threadIdx.x;
    if (d >= a.v.dim) return;
    const int64_t at = int64_t(blockIdx.x) * a.heads + blockIdx.y;
    const float *part = a.partial + at * a.splits * (a.v.dim + 2);
    Softmax all = begin(a.sinks, blockIdx.y);
    float value = 0;
    // Some are asked for together: a context has many splits, and this kernel little else to do than to wait for them.
    const int AT_ONCE = 8, size = a.v.dim + 2;
    for (int first = 0; first < a.splits; first += AT_ONCE) {
        Softmax softmax[AT_ONCE];
        float values[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            // Past the end it is the last one, which is not added again.
            const float *split = part + int64_t(first + k < a.splits ? first + k : a.splits - 1) * size;
            softmax[k] = {split[a.v.dim], split[a.v.dim + 1]};
            values[k] = split[d];
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            if (first + k >= a.splits || softmax[k].sum == 0) continue;
            float factor_all, factor_part;
            merge(all, softmax[k], factor_all, factor_part);
            value = fmaf(values[k], factor_part, value * factor_all);
        }
    }
    const float y = value / all.sum;
    a.out[at * a.v.dim + d] = y;
    if (a.rounded) round_to(a.rounded[(at * a.v.dim + d) / 32], y);
}
