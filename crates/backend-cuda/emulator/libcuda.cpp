// The CUDA driver's interface over the emulator: a libcuda.so.1 for machines without a GPU, so that what binds the driver
// is tested as it is. Whatever is given to a stream is done as late as may be: when the host waits for it, or another stream
// that the host waits for does. So what lacks an event finds, or overwrites, bytes of before. Work of a GPU that is lost is not
// done; who waits for it only in another GPU's stream does not hear of that. Allocations are exact and full of NaN.
// What can be set is in `libcuda/settings.h`.
#include "libcuda/devices.h"
#include "libcuda/graphs.h"
#include "libcuda/kernels.h"
#include "libcuda/memory.h"
#include "libcuda/streams.h"
