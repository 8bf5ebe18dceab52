// Threads that share the pieces of an operation.  The calling thread works too.
//
// Which piece a thread takes is a matter of chance, but what a piece holds depends on the size of
// the operation alone, so the results have the same bits on any number of threads.  On a busy
// machine the caller does most pieces by itself.  A thread without work soon sleeps.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <vector>

#include "program.hpp"

namespace gpumlp {

inline void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

// true as soon as done() is; false after about so many microseconds
template <class Done> bool spin(Done done, int microseconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
    do {
        for (int i = 0; i < 64; ++i) {
            if (done()) return true;
            pause_briefly();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

class Pool {
public:
    Pool() : process(getpid()) {}
    const int process;  // a fork of it has no threads

    // Call work(operation, i) for i = 0 … pieces − 1 on at most `threads` threads.
    void run(Piece work, const void* operation, int64 pieces, int threads) {
        std::unique_lock<std::mutex> alone(one_at_a_time, std::try_to_lock);
        if (threads <= 1 || pieces <= 1 || !alone) {
            for (int64 i = 0; i < pieces; ++i) work(operation, i);
            return;
        }
        const int helpers = int(pieces < threads ? pieces : threads) - 1;
        while (int(workers.size()) < helpers) {
            workers.emplace_back([this] { serve(); });
            workers.back().detach();
        }
        this->work = work, this->operation = operation, this->pieces = pieces;
        next.store(0, std::memory_order_relaxed);
        running.store(helpers, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> guard(sleep);
            invited = helpers;
            job.fetch_add(1, std::memory_order_release);
        }
        if (asleep.load() > 0) wake.notify_all();
        take();
        withdraw();
        const auto finished = [this] { return running.load(std::memory_order_acquire) == 0; };
        while (!spin(finished, SPIN)) std::this_thread::yield();
    }

private:
    enum { SPIN = 30 };  // microseconds

    void take() {
        for (int64 i; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces;)
            work(operation, i);
    }

    // Workers that have not begun yet are not waited for.
    void withdraw() {
        std::lock_guard<std::mutex> guard(sleep);
        running.fetch_sub(invited, std::memory_order_acq_rel);
        invited = 0;
    }

    void serve() {
        unsigned seen = 0;
        for (;;) {
            const auto called = [&] { return job.load(std::memory_order_acquire) != seen; };
            if (!spin(called, SPIN)) {
                std::unique_lock<std::mutex> guard(sleep);
                asleep.fetch_add(1);
                wake.wait(guard, called);
                asleep.fetch_sub(1);
            }
            {
                std::lock_guard<std::mutex> guard(sleep);
                seen = job.load(std::memory_order_relaxed);
                if (invited == 0) continue;
                --invited;
            }
            take();
            running.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex one_at_a_time, sleep;
    std::condition_variable wake;
    std::atomic<unsigned> job{0};
    std::atomic<int> asleep{0}, running{0};
    std::atomic<int64> next{0};
    int invited = 0;
    Piece work = nullptr;
    const void* operation = nullptr;
    int64 pieces = 0;
    std::vector<std::thread> workers;
};

// The pool of this process.  A fork gets a new one; that of its parent stays where it is.
inline Pool& pool() {
    static std::atomic<Pool*> current{nullptr};
    Pool* found = current.load();
    if (found == nullptr || found->process != getpid()) {
        Pool* made = new Pool;
        if (current.compare_exchange_strong(found, made)) return *made;
        delete made;
        found = current.load();
    }
    return *found;
}

}  // namespace gpumlp
