// The thread pool: one ticket says which job it is and how many of its chunks nobody has taken.
#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "simd.h"

namespace lmi {
namespace {

// Between two operations of one step lie a few microseconds; beyond this a worker sleeps.
constexpr auto kSpin = std::chrono::microseconds(50);
constexpr int kPausesPerLook = 16;
// A chunk whose thread is not running may take a time slice: then the core is of use to others.
constexpr int kPausesBeforeYield = 4096;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// 0, or the error number.
int pin(pthread_t thread, int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu < 0 || cpu >= CPU_SETSIZE) return EINVAL;
    CPU_SET(cpu, &set);
    return pthread_setaffinity_np(thread, sizeof(set), &set);
}

class Pool {
public:
    ~Pool() { stop(); }

    int threads() const { return int(workers_.size()) + 1; }

    int resize(int threads, const int* cpus) {
        std::lock_guard<std::mutex> lock(run_);
        stop();
        for (int i = 1; i < threads; ++i) {
            workers_.emplace_back([this] { work(); });
            if (cpus == nullptr) continue;
            if (const int error = pin(workers_.back().native_handle(), cpus[i])) {
                stop();
                return error;
            }
        }
        return cpus == nullptr ? 0 : pin(pthread_self(), cpus[0]);
    }

    void run(int64_t count, void (*body)(void*, int64_t), void* context) {
        std::unique_lock<std::mutex> lock(run_, std::try_to_lock);
        if (!lock.owns_lock() || workers_.empty()) {
            for (int64_t chunk = 0; chunk < count; ++chunk) body(context, chunk);
            return;
        }
        // Nobody holds a chunk of the last job, and none can be taken: these are ours to write.
        body_ = body;
        context_ = context;
        count_ = uint32_t(count);
        done_.store(0, std::memory_order_relaxed);
        const uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
        // In one total order with `sleepers_`: either we see a sleeper or it sees the job.
        ticket_.store(generation << 32 | count_, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst) > 0) {
            std::lock_guard<std::mutex> asleep(sleep_);
            wake_.notify_all();
        }
        take_chunks();
        for (int pauses = 0; done_.load(std::memory_order_acquire) != count_; ++pauses) {
            if (pauses < kPausesBeforeYield) {
                pause();
            } else {
                sched_yield();
            }
        }
    }

private:
    bool anything_to_take() const {
        return uint32_t(ticket_.load(std::memory_order_seq_cst)) != 0;
    }

    // The ticket holds the job's number, so that a thread that looked at an earlier job can't take
    // a chunk of this one by mistake; body, context and count are read only once a chunk is ours,
    // when the job can't end.
    void take_chunks() {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while (uint32_t(ticket) != 0) {
            if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                               std::memory_order_acquire)) {
                continue;
            }
            body_(context_, int64_t(count_ - uint32_t(ticket)));
            // Reported one by one: unreported work would keep the caller waiting for our next.
            done_.fetch_add(1, std::memory_order_release);
            ticket = ticket_.load(std::memory_order_acquire);
        }
    }

    void work() {
        while (!stopping_.load(std::memory_order_acquire)) {
            take_chunks();
            const auto until = std::chrono::steady_clock::now() + kSpin;
            bool found = false;
            do {
                for (int i = 0; i < kPausesPerLook; ++i) pause();
                found = anything_to_take() || stopping_.load(std::memory_order_acquire);
            } while (!found && std::chrono::steady_clock::now() < until);
            if (found) continue;
            std::unique_lock<std::mutex> lock(sleep_);
            sleepers_.fetch_add(1, std::memory_order_seq_cst);
            wake_.wait(lock, [this] {
                return anything_to_take() || stopping_.load(std::memory_order_acquire);
            });
            sleepers_.fetch_sub(1, std::memory_order_seq_cst);
        }
    }

    void stop() {
        {
            std::lock_guard<std::mutex> lock(sleep_);
            stopping_.store(true, std::memory_order_release);
            wake_.notify_all();
        }
        for (std::thread& worker : workers_) worker.join();
        workers_.clear();
        stopping_.store(false, std::memory_order_release);
    }

    alignas(64) std::atomic<uint64_t> ticket_{0};  // job << 32 | chunks not taken
    alignas(64) std::atomic<uint32_t> done_{0};
    alignas(64) void (*body_)(void*, int64_t) = nullptr;
    void* context_ = nullptr;
    uint32_t count_ = 0;
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stopping_{false};
    std::mutex run_;
    std::mutex sleep_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

// The workers of a forked process stay behind in its parent: the child starts with none.
std::unique_ptr<Pool>& pool() {
    static std::unique_ptr<Pool> instance = [] {
        pthread_atfork(nullptr, nullptr, [] {
            (void)pool().release();
            pool() = std::make_unique<Pool>();
        });
        return std::make_unique<Pool>();
    }();
    return instance;
}

struct Free {
    void operator()(float* memory) const { std::free(memory); }
};

}  // namespace

void run_chunks(int64_t count, void (*body)(void*, int64_t), void* context) {
    pool()->run(count, body, context);
}

int thread_count() { return pool()->threads(); }

float* scratch(ScratchSlot slot, size_t floats) {
    struct Buffer {
        std::unique_ptr<float, Free> memory;
        size_t floats = 0;
    };
    thread_local Buffer buffers[kScratchSlots];
    Buffer& buffer = buffers[slot];
    if (buffer.floats < floats) {
        const size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
        buffer.memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
        if (!buffer.memory) throw std::bad_alloc();
        buffer.floats = floats;
    }
    return buffer.memory.get();
}

}  // namespace lmi

// threads: with the calling thread, from 1. cpus: one per thread, the caller's first, or null for
// no pinning. Returns 0 or the system's error number.
LMI_API int lmi_set_threads(int threads, const int* cpus) {
    return lmi::pool()->resize(threads, cpus);
}

LMI_API int lmi_threads() { return lmi::thread_count(); }

// What this build was compiled for, as said on its command line.
LMI_API const char* lmi_target() { return LMI_TARGET; }

// Of the interface as a whole: raised with every change that library.py must know of.
LMI_API int lmi_abi() { return 3; }
