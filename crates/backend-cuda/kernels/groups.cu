// Rows of a mixture's products, grouped by expert, so that a prompt reads an expert's weights once for each tile of rows.
#include "product.h"

struct GroupArgs {
    const uint32_t *ids;   // [slots]: the expert of each
    uint32_t *order;       // [slots]: slots, expert by expert
    Tile *tiles;           // [slots / side + experts + 1]
    int32_t slots, experts;
    int32_t side, unused;  // the most slots of a tile
};

const int WARPS = 8;

// A block has an expert; the last one has the ids of experts that do not exist. It counts what comes before its own slots
// and lists these in order; nothing depends on the order of blocks. Each warp has a share of the slots.
//
// Tiles of expert e begin at `before / side + e`, `before` being the slots of those before it: there is always room.
KERNEL(group, GroupArgs, 32 * WARPS) {
    DYNAMIC_SHARED(int, counts);   // of each warp: slots of experts before, and of this one
    const int expert = blockIdx.x, warp = threadIdx.x / 32;
    const int share = ((a.slots + WARPS - 1) / WARPS + 31) / 32 * 32;
    const int begin = warp * share < a.slots ? warp * share : a.slots;
    const int end = begin + share < a.slots ? begin + share : a.slots;
    int before = 0, mine = 0;
    for (int i = begin + lane(); i < end; i += 32) {
        const int id = a.ids[i] < uint32_t(a.experts) ? int(a.ids[i]) : a.experts;
        before += id < expert;
        mine += id == expert;
    }
    before = warp_sum_int(before, 32);
    mine = warp_sum_int(mine, 32);
    if (lane() == 0) {
        counts[2 * warp] = before;
        counts[2 * warp + 1] = mine;
    }
    __syncthreads();
    // Of all warps; `to` is where this warp's slots go.
    int to = before = mine = 0;
    for (int w = 0; w < WARPS; w++) before += counts[2 * w];
    for (int w = 0; w < WARPS; w++) {
        if (w == warp) to = before + mine;
        mine += counts[2 * w + 1];
    }
    for (int i = begin; i < end; i += 32) {
        const int slot = i + lane();
        const bool here = slot < end && (a.ids[slot] < uint32_t(a.experts) ? int(a.ids[slot]) : a.experts) == expert;
        const uint32_t all = __ballot_sync(ALL_LANES, here);
        if (here) a.order[to + __popc(all & ((1u << lane()) - 1))] = uint32_t(slot);
        to += __popc(all);
    }
    const int first_tile = before / a.side + expert, end_tile = (before + mine) / a.side + expert + 1;
    for (int t = first_tile + threadIdx.x; t < end_tile; t += 32 * WARPS) {
        const int done = (t - first_tile) * a.side, left = mine - done;
        const Tile tile = {before + done, left < 0 ? 0 : left < a.side ? left : a.side, expert};
        a.tiles[t] = tile;
    }
}
