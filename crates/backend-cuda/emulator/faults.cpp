// Kernels with faults that the emulator must notice (tests/faults.rs).
#include "../kernels/device.h"

struct FaultArgs {
    float *out;
    int32_t fault, bytes;
};

KERNEL(faults, FaultArgs, 64) {
    DYNAMIC_SHARED(char, shared);
    const int me = int(threadIdx.x), lane = me % 32;
    uint32_t value = 0;
    switch (a.fault) {
        case 0: break;
        case 1: shared[a.bytes + me] = 1; break;
        case 2:
            if (lane < 16) __syncwarp(~0u);
            else __syncwarp(0xffffff00);
            break;
        case 3:
            if (me != 0) __syncwarp();
            break;
        case 4: value = __shfl_sync(0xffff, uint32_t(me), 0); break;
        case 5:
            if (lane < 16) value = __shfl_sync(0xffff, uint32_t(me), 20);
            break;
        case 6:
            if (lane < 16) value = __shfl_sync(~0u, uint32_t(me), 0);
            else value = __shfl_xor_sync(~0u, uint32_t(me), 1);
            break;
        case 7: value = load<uint32_t>(reinterpret_cast<const char *>(a.out) + 1); break;
        case 8: value = permute(1, 2, 0x8765); break;
        case 9:
            if (me < 32) __syncthreads();
            else __syncwarp(lane < 16 ? ~0u : 0xffff0000);
            break;
    }
    if (value == 12345) a.out[0] = 0;
}

/// What is in both kinds of shared memory when a block starts.
KERNEL(leftovers, FaultArgs, 64) {
    DYNAMIC_SHARED(float, shared);
    __shared__ float kept[64];
    float *to = a.out + (blockIdx.x * 64 + threadIdx.x) * 2;
    to[0] = shared[threadIdx.x];
    to[1] = kept[threadIdx.x];
    shared[threadIdx.x] = kept[threadIdx.x] = 1;
}
