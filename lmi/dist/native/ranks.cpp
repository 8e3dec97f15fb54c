// How ranks wait for each other, notice that one is gone, and pass rank 0's messages on.
#include "ranks.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "simd.h"

namespace lmi {
namespace {

constexpr int64_t kNanoseconds = 1000000000;
// Looks at the counter between two looks at the clock, a microsecond or less.
constexpr int kSpins = 16;
// A sleeper looks up this often for an abort, whose own wake-up call it may have missed.
constexpr int64_t kSleepNanoseconds = 8000000;
// How often it looks whether the others live.
constexpr int64_t kLookNanoseconds = 100000000;

int64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return int64_t(time.tv_sec) * kNanoseconds + time.tv_nsec;
}

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// The counter of another process: so without FUTEX_PRIVATE_FLAG.
void futex_wait(std::atomic<uint32_t>& word, uint32_t value, int64_t nanoseconds) {
    const timespec time{time_t(nanoseconds / kNanoseconds), long(nanoseconds % kNanoseconds)};
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, value, &time, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>& word) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr,
            0);
}

// Store and load are sequentially consistent here and in the sleeper: either we see that it sleeps,
// or it sees the new count before it does.
void publish(Counter& counter, uint32_t count) {
    counter.count.store(count, std::memory_order_seq_cst);
    if (counter.sleepers.load(std::memory_order_seq_cst) != 0) futex_wake(counter.count);
}

bool reached(uint32_t count, uint32_t target) { return int32_t(count - target) >= 0; }

// When a process started, in clock ticks since boot; -1 where it is dead, -2 where /proc is no help.
int64_t start_of(int64_t process) {
    char path[64], text[1024];
    std::snprintf(path, sizeof(path), "/proc/%lld/stat", static_cast<long long>(process));
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return errno == ENOENT ? -1 : -2;
    const ssize_t length = read(file, text, sizeof(text) - 1);
    const int error = errno;
    close(file);
    if (length <= 0) return length < 0 && error == ESRCH ? -1 : -2;
    text[length] = 0;
    const char* at = std::strrchr(text, ')');  // the name before it may hold anything
    if (at == nullptr || at[1] == 0) return -2;
    if (at[2] == 'Z' || at[2] == 'X') return -1;
    for (int field = 2; field < 22; ++field) {  // field 22 of proc(5)
        at = std::strchr(at + 1, ' ');
        if (at == nullptr) return -2;
    }
    return std::atoll(at);
}

int32_t verdict(Outcome outcome, int rank) { return int32_t(outcome) | rank << 8; }

}  // namespace

Ranks::Ranks(Segment* segment, int rank, int size, size_t buffer_bytes, double timeout, double spin)
    : segment_(segment),
      rank_(rank),
      size_(size),
      buffer_bytes_(buffer_bytes),
      timeout_(timeout),
      spin_(int64_t(spin * kNanoseconds)) {
    Rank& mine = segment_->ranks[rank_];
    mine.started.store(start_of(getpid()), std::memory_order_relaxed);
    mine.process.store(getpid(), std::memory_order_release);
}

int32_t Ranks::await(Counter& counter, uint32_t target, int rank, double seconds) {
    const auto here = [&] {
        return reached(counter.count.load(std::memory_order_acquire), target);
    };
    int64_t last = now();
    for (const int64_t until = last + spin_; last < until; last = now()) {
        for (int spin = 0; spin < kSpins; ++spin) {
            if (here()) return kDone;
            pause();
        }
    }
    int64_t waited = 0, looked = 0;
    while (true) {
        counter.sleepers.fetch_add(1, std::memory_order_seq_cst);
        const uint32_t count = counter.count.load(std::memory_order_seq_cst);
        if (!reached(count, target)) futex_wait(counter.count, count, kSleepNanoseconds);
        counter.sleepers.fetch_sub(1, std::memory_order_relaxed);
        if (here()) return kDone;
        if (shut_.load(std::memory_order_relaxed)) return verdict(kLeft, rank_);
        if (aborted()) return kAborted;
        // While this process itself was stopped, or the whole container, nobody was late.
        const int64_t time = now();
        waited += std::min(time - last, kLookNanoseconds);
        last = time;
        if (waited - looked >= kLookNanoseconds) {
            looked = waited;
            const int32_t outcome = lost();
            if (here()) return kDone;
            if (outcome != kDone) return outcome;
        }
        if (double(waited) > seconds * kNanoseconds) return verdict(kTimedOut, rank);
    }
}

int32_t Ranks::lost() {
    for (int rank = 0; rank < size_; ++rank) {
        Rank& other = segment_->ranks[rank];
        if (other.left.load(std::memory_order_acquire) != 0) return verdict(kLeft, rank);
        const int64_t process = other.process.load(std::memory_order_acquire);
        if (process == 0) continue;
        const int64_t started = start_of(process);
        if (started == -2) continue;  // it may live: then only the time-out can tell
        if (started != other.started.load(std::memory_order_relaxed)) return verdict(kGone, rank);
    }
    return kDone;
}

// From the next rank on, so that not all read the same rank's counter first.
int32_t Ranks::await_all(Counter Rank::*counter, double seconds) {
    for (int step = 1; step < size_; ++step) {
        const int rank = (rank_ + step) % size_;
        const int32_t outcome =
            await(segment_->ranks[rank].*counter, operation_, rank, seconds);
        if (outcome != kDone) return outcome;
    }
    return kDone;
}

int32_t Ranks::arrive(uint64_t call, double seconds) {
    if (aborted()) return kAborted;
    Rank& mine = segment_->ranks[rank_];
    const uint32_t parity = operation_ % 2;
    mine.arrived.call[parity].store(call, std::memory_order_relaxed);
    publish(mine.arrived, operation_);
    const int32_t outcome = await_all(&Rank::arrived, seconds);
    if (outcome != kDone) return outcome;
    for (int rank = 0; rank < size_; ++rank) {
        Counter& theirs = segment_->ranks[rank].arrived;
        if (theirs.call[parity].load(std::memory_order_relaxed) != call) {
            return verdict(kMismatch, rank);
        }
    }
    return kDone;
}

int32_t Ranks::reduce() {
    publish(segment_->ranks[rank_].reduced, operation_);
    return await_all(&Rank::reduced, timeout_);
}

int32_t Ranks::speak(const uint8_t* data, size_t bytes) {
    if (aborted()) return kAborted;
    size_t sent = 0;
    do {
        ++message_;
        for (int rank = 1; rank < size_; ++rank) {  // the slot's last but one message is copied
            const int32_t outcome =
                await(segment_->ranks[rank].heard, message_ - 2, rank, timeout_);
            if (outcome != kDone) return outcome;
        }
        Slot& slot = segment_->slots[message_ % 2];
        const size_t piece = std::min(bytes - sent, kSlotBytes);
        slot.total = bytes;
        std::memcpy(slot.data, data + sent, piece);
        publish(segment_->spoken, message_);
        sent += piece;
    } while (sent < bytes);
    return kDone;
}

int32_t Ranks::hear(uint8_t* to, size_t capacity, size_t* total) {
    if (aborted()) return kAborted;
    size_t taken = 0;
    do {
        const int32_t outcome = await(segment_->spoken, message_ + 1, 0, timeout_);
        if (outcome != kDone) return outcome;
        Slot& slot = segment_->slots[(message_ + 1) % 2];
        *total = slot.total;
        if (slot.total > capacity) return kDone;
        const size_t piece = std::min(slot.total - taken, kSlotBytes);
        std::memcpy(to + taken, slot.data, piece);
        taken += piece;
        publish(segment_->ranks[rank_].heard, ++message_);
    } while (taken < *total);
    return kDone;
}

void Ranks::abort(const char* reason) {
    uint32_t no = 0;
    if (!segment_->aborted.compare_exchange_strong(no, 1)) return;
    std::strncpy(segment_->reason, reason, sizeof(segment_->reason) - 1);
    segment_->aborted.store(2, std::memory_order_release);
    futex_wake(segment_->spoken.count);
    for (int rank = 0; rank < size_; ++rank) {
        Rank& each = segment_->ranks[rank];
        for (Counter* counter : {&each.arrived, &each.reduced, &each.heard}) {
            futex_wake(counter->count);
        }
    }
}

void Ranks::shut() {
    shut_.store(true, std::memory_order_relaxed);
    segment_->ranks[rank_].left.store(1, std::memory_order_release);
}

}  // namespace lmi

// ------------------------------------------------------------------------------------- the C face

using lmi::Ranks;
using lmi::Segment;

LMI_API int64_t lmi_ranks_bytes(int32_t size, int64_t buffer_bytes) {
    return int64_t(Ranks::bytes(size, size_t(buffer_bytes)));
}

// Puts this rank's view of the segment in `file` into `ranks`. Returns 0 or an errno; EBADMSG: the
// segment is not that of `token`. The file is zeros before rank 0, which attaches first.
LMI_API int32_t lmi_ranks_attach(int32_t file, const uint8_t* token, int32_t rank, int32_t size,
                                 int64_t buffer_bytes, double timeout, double spin,
                                 Ranks** ranks) {
    if (size > lmi::kMaxRanks) return EINVAL;
    const size_t bytes = Ranks::bytes(size, size_t(buffer_bytes));
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) return errno;
    Segment* segment = static_cast<Segment*>(memory);
    if (rank == 0) {
        new (segment) Segment{};
        std::memcpy(segment->token, token, sizeof(segment->token));
    } else if (std::memcmp(segment->token, token, sizeof(segment->token)) != 0) {
        munmap(memory, bytes);
        return EBADMSG;
    }
    *ranks = new Ranks(segment, rank, size, size_t(buffer_bytes), timeout, spin);
    return 0;
}

LMI_API void lmi_ranks_detach(Ranks* ranks) {
    munmap(&ranks->segment(), Ranks::bytes(ranks->size(), ranks->buffer_bytes()));
    delete ranks;
}

LMI_API int32_t lmi_ranks_meet(Ranks* ranks, double seconds) {
    ranks->next();
    return ranks->arrive(0, seconds);
}

LMI_API int32_t lmi_ranks_speak(Ranks* ranks, const uint8_t* data, int64_t bytes) {
    return ranks->speak(data, size_t(bytes));
}

LMI_API int32_t lmi_ranks_hear(Ranks* ranks, uint8_t* to, int64_t capacity, int64_t* total) {
    size_t bytes = 0;
    const int32_t outcome = ranks->hear(to, size_t(capacity), &bytes);
    *total = int64_t(bytes);
    return outcome;
}

LMI_API void lmi_ranks_abort(Ranks* ranks, const char* reason) { ranks->abort(reason); }

LMI_API const char* lmi_ranks_reason(Ranks* ranks) { return ranks->segment().reason; }

LMI_API int64_t lmi_ranks_process(Ranks* ranks, int32_t rank) {
    return ranks->segment().ranks[rank].process.load(std::memory_order_relaxed);
}

LMI_API void lmi_ranks_shut(Ranks* ranks) { ranks->shut(); }
