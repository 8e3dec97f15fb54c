// Threads that share the chunks of one job at a time.
//
// Rules: a chunk's result never depends on who computes it or on how many there are. The caller
// computes too, and waits only for chunks that somebody has taken, so a thread that the system
// does not run delays a job by at most its one chunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lmi {

// body(context, chunk), called once for every chunk from 0 to count - 1; returns when all are done.
// Two threads of a program may call it at once: the second computes its job alone.
void run_chunks(int64_t count, void (*body)(void* context, int64_t chunk), void* context);

// Threads that compute, with the caller.
int thread_count();

template <class Body>
inline void parallel(int64_t count, Body&& body) {
    if (count == 1) {
        body(int64_t{0});
        return;
    }
    using Plain = std::remove_reference_t<Body>;
    run_chunks(
        count, [](void* context, int64_t chunk) { (*static_cast<Plain*>(context))(chunk); },
        const_cast<void*>(static_cast<const void*>(&body)));
}

// Memory of the calling thread that lasts until it asks the same slot for more: `floats` floats,
// aligned to 64 bytes, not cleared.
enum ScratchSlot { kPanelScratch, kKeyScratch, kValueScratch, kStateScratch, kJoinScratch, kInputScratch, kScratchSlots };
float* scratch(ScratchSlot slot, size_t floats);

}  // namespace lmi
