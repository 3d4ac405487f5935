// The orthonormal Walsh-Hadamard transform: a block has a block of values in shared memory.
#include "device.h"

struct HadamardArgs {
    float *x;
    int32_t block;   // a power of two
    float scale;     // 1 / sqrt(block)
};

KERNEL(hadamard, HadamardArgs, 256) {
    DYNAMIC_SHARED(float, values);   // [block]
    float *x = a.x + int64_t(blockIdx.x) * a.block;
    for (int i = threadIdx.x; i < a.block; i += blockDim.x) values[i] = x[i];
    for (int apart = 1; apart < a.block; apart *= 2) {
        __syncthreads();
        for (int pair = threadIdx.x; pair < a.block / 2; pair += blockDim.x) {
            const int low = (pair & ~(apart - 1)) * 2 + (pair & (apart - 1));
            const float p = values[low], q = values[low + apart];
            values[low] = p + q;
            values[low + apart] = p - q;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < a.block; i += blockDim.x) x[i] = values[i] * a.scale;
}
