// Streams and events: who waits for whom.
#pragma once
#include "state.h"

API cuStreamCreate(void **to, unsigned) {
    Guard guard;
    static long long last = 0;
    Stream *stream = new Stream{now(), ++last, {}};
    streams[stream->number] = stream;
    return now().handles++, *to = stream, ready();
}
API cuStreamDestroy_v2(void *gone) {
    Guard guard;
    Stream *stream = static_cast<Stream *>(gone);
    stream->catch_up();
    streams.erase(stream->number);
    return now().handles--, delete stream, SUCCESS;
}
API cuStreamSynchronize(void *stream) {
    Guard guard;
    if (int error = ready()) return error;
    counts.waits += static_cast<Stream *>(stream)->catch_up();
    const char *path = getenv("FAKE_CUDA_COUNTS");
    if (FILE *file = path ? fopen(path, "w") : nullptr) {
        fprintf(file, "%lld %lld %lld %lld ", counts.launched, counts.made, counts.changed, counts.graphs);
        fprintf(file, "%lld %lld %lld", counts.staged, counts.direct, counts.waits);
        fclose(file);
    }
    return ready();
}
API cuEventCreate(void **event, unsigned) {
    Guard guard;
    return now().handles++, *event = new Event{now()}, ready();
}
API cuEventDestroy_v2(void *event) {
    Guard guard;
    return now().handles--, delete static_cast<Event *>(event), SUCCESS;
}
API cuEventRecord(void *which, void *in) {
    Guard guard;
    Event &event = *static_cast<Event *>(which);
    Stream &stream = *static_cast<Stream *>(in);
    if (&event.device != &stream.device || &event.device != &now()) return INVALID_HANDLE;
    event.stream = stream.number, event.after = stream.given;
    return ready();
}
API cuEventSynchronize(void *event) {
    Guard guard;
    if (int error = ready()) return error;
    counts.waits += static_cast<Event *>(event)->catch_up();
    return ready();
}
/// Means the event as it was recorded last, of any GPU.
API cuStreamWaitEvent(void *stream, void *event, unsigned) {
    Guard guard;
    const Event recorded = *static_cast<Event *>(event);
    return give(stream, [recorded] { return recorded.catch_up(); });
}
