// What the ranks of one host share: a segment of memory with counters, and how they wait for each
// other.
//
// Every counter has one writer, only grows, and is published after the data that it stands for, so
// whoever has seen the count sees the data. Data buffers are used in turn, two per rank: a rank may
// fill a buffer of its own again after the next operation has begun everywhere, since by then
// everybody is done with this one. So no operation ends with a barrier.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace lmi {

constexpr int kMaxRanks = 64;
// Two cache lines: processors fetch neighbours in pairs.
constexpr size_t kLine = 128;
constexpr size_t kPage = 4096;
constexpr size_t kSlotBytes = 64 * 1024;  // of one message, or a piece of one

static_assert(std::atomic<uint32_t>::is_always_lock_free, "counters are shared by processes");

// How waiting ended; the same numbers as in native.py. Above the low byte stands the rank.
enum Outcome : int32_t { kDone, kTimedOut, kGone, kLeft, kAborted, kMismatch };

// A counter that others may sleep on.
struct alignas(kLine) Counter {
    std::atomic<uint32_t> count;
    std::atomic<uint32_t> sleepers;
    // What the writer was called to do, for an operation of even and of odd number.
    std::atomic<uint64_t> call[2];
};

struct Rank {
    Counter arrived;  // operations whose data stand in its buffer
    Counter reduced;  // operations whose slice of sums stands in its buffer
    Counter heard;    // messages of rank 0 that it has copied
    alignas(kLine) std::atomic<int64_t> process;  // its id, 0 before it is here
    std::atomic<int64_t> started;  // in clock ticks since boot: ids are used anew
    std::atomic<uint32_t> left;
};

struct alignas(kLine) Slot {
    uint64_t total;  // bytes of the whole message
    uint8_t data[kSlotBytes];
};

struct Segment {
    uint8_t token[16];  // chosen by rank 0, to know the segment by
    alignas(kLine) std::atomic<uint32_t> aborted;  // 0 no, 1 the reason is being written, 2 yes
    char reason[252];
    Counter spoken;  // messages of rank 0
    Rank ranks[kMaxRanks];
    Slot slots[2];
};

constexpr size_t kHeaderBytes = (sizeof(Segment) + kPage - 1) / kPage * kPage;

// One rank's view of the segment. One thread calls it; abort and shut may come from any other.
class Ranks {
public:
    // timeout: seconds after which a rank counts as hung. spin: seconds to wait awake before a
    // sleep; waking up costs a rank tens of microseconds.
    Ranks(Segment* segment, int rank, int size, size_t buffer_bytes, double timeout, double spin);

    // Bytes of the whole segment.
    static size_t bytes(int size, size_t buffer_bytes) {
        return kHeaderBytes + size_t(size) * 2 * buffer_bytes;
    }

    int rank() const { return rank_; }
    int size() const { return size_; }
    size_t buffer_bytes() const { return buffer_bytes_; }
    double timeout() const { return timeout_; }
    Segment& segment() { return *segment_; }

    // Begins the next operation; the buffers that it may use are those of `buffer`.
    void next() { ++operation_; }
    template <class Element>
    Element* buffer(int rank) {
        uint8_t* first = reinterpret_cast<uint8_t*>(segment_) + kHeaderBytes;
        return reinterpret_cast<Element*>(
            first + (size_t(rank) * 2 + operation_ % 2) * buffer_bytes_);
    }

    // Says that this rank's buffer is filled, then waits until all are. call: what this rank was
    // asked to do: all must have been asked the same.
    int32_t arrive(uint64_t call, double seconds);
    // Says that this rank's sums stand in its buffer, then waits until all do.
    int32_t reduce();

    // Rank 0: the message for all others.
    int32_t speak(const uint8_t* data, size_t bytes);
    // Others: the next message, whose length goes to `total`; it is taken only if it fits.
    int32_t hear(uint8_t* to, size_t capacity, size_t* total);

    // Ends all waiting, on every rank; the first reason stays.
    void abort(const char* reason);
    // Ends this rank's waiting, and tells the others that it has left.
    void shut();

private:
    int32_t await(Counter& counter, uint32_t target, int rank, double seconds);
    int32_t await_all(Counter Rank::*counter, double seconds);
    int32_t lost();
    bool aborted() const { return segment_->aborted.load(std::memory_order_acquire) == 2; }

    Segment* segment_;
    int rank_, size_;
    size_t buffer_bytes_;
    double timeout_;
    int64_t spin_;  // nanoseconds
    uint32_t operation_ = 0;
    uint32_t message_ = 0;
    std::atomic<bool> shut_{false};
};

}  // namespace lmi
