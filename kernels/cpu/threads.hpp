// Threads that share the pieces of an operation.  The calling thread works too.
//
// Which piece a thread takes is a matter of chance, but what a piece holds depends on the size of
// the operation alone, so the results have the same bits on any number of threads.  A thread
// without work soon sleeps.
//
// On a busy machine, a thread that is woken could take its caller's core, and one that works may
// lose its core in the middle of a piece.  So threads keep off their caller's core, those that came
// too late are not woken again at once, and after a long wait for a piece the caller does all
// pieces by itself for some time.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <sched.h>
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

// the core on which this thread runs, if that can be known; else a number below −1
inline int core() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -2;
#endif
}

// Move this thread to another core than this one, if the process has another.
inline void leave([[maybe_unused]] int core, [[maybe_unused]] pid_t process) {
#if defined(__linux__)
    cpu_set_t cores;
    if (sched_getaffinity(process, sizeof cores, &cores) != 0) return;
    CPU_CLR(core, &cores);
    if (CPU_COUNT(&cores) > 0) sched_setaffinity(0, sizeof cores, &cores);
#endif
}

typedef std::chrono::steady_clock Clock;

// true as soon as done() is; false after about so many microseconds
template <class Done> bool spin(Done done, int microseconds) {
    const auto end = Clock::now() + std::chrono::microseconds(microseconds);
    do {
        for (int i = 0; i < 64; ++i) {
            if (done()) return true;
            pause_briefly();
        }
    } while (Clock::now() < end);
    return false;
}

class Pool {
public:
    Pool() : process(getpid()) {}
    const int process;  // a fork of it has no threads

    // Call work(operation, i) for i = 0 … pieces − 1 on at most `threads` threads.
    void run(Piece work, const void* operation, int64 pieces, int threads) {
        std::unique_lock<std::mutex> mine(one_at_a_time, std::try_to_lock);
        const int helpers = int(pieces < threads ? pieces : threads) - 1;
        if (helpers < 1 || !mine || !invite(work, operation, pieces, helpers)) {
            for (int64 i = 0; i < pieces; ++i) work(operation, i);
            return;
        }
        take();
        const auto done = Clock::now();
        withdraw(helpers);
        const auto finished = [this] { return running.load(std::memory_order_acquire) == 0; };
        while (!spin(finished, SPIN)) std::this_thread::yield();
        const auto end = Clock::now();
        if (end - done > done - start + std::chrono::microseconds(STALL)) stalled(end, end - done);
    }

private:
    enum { SPIN = 30, STALL = 100, WAKE = 1000 };  // microseconds
    enum { SHORTEST = 2, LONGEST = 16 };  // the time alone, in waits

    // Offer the pieces to the workers; false if it is better to do them alone.
    bool invite(Piece work, const void* operation, int64 pieces, int helpers) {
        start = Clock::now();
        while (int(workers.size()) < helpers) {
            workers.emplace_back([this] { serve(); });
            workers.back().detach();
        }
        const int missing = helpers - (int(workers.size()) - asleep.load());
        const bool waking = missing > 0 && start >= wake_again;
        if (start < alone_until || (missing == helpers && !waking)) return false;
        this->work = work, this->operation = operation, this->pieces = pieces;
        callers_core.store(core());
        next.store(0, std::memory_order_relaxed);
        running.store(helpers, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> guard(sleep);
            invited = helpers;
            job.fetch_add(1, std::memory_order_release);
        }
        if (waking) {
            wake_again = start + std::chrono::microseconds(WAKE);
            for (int i = 0; i < missing; ++i) wake.notify_one();
        }
        return true;
    }

    // Work alone for twice as long as the caller has waited; if it soon waits again, longer.
    void stalled(Clock::time_point now, Clock::duration waited) {
        const bool soon = now - alone_until < LONGEST * waited;
        alone = soon && alone < LONGEST ? 2 * alone : soon ? alone : SHORTEST;
        alone_until = now + alone * waited;
    }

    void take() {
        for (int64 i; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces;)
            work(operation, i);
    }

    // Workers that have not begun yet are not waited for.
    void withdraw(int helpers) {
        std::lock_guard<std::mutex> guard(sleep);
        if (invited < helpers) wake_again = {};  // it was worth it
        running.fetch_sub(invited, std::memory_order_acq_rel);
        invited = 0;
    }

    void serve() {
        unsigned seen = 0;
        for (;;) {
            const auto called = [&] { return job.load(std::memory_order_acquire) != seen; };
            const auto in_the_way = [&] { return core() == callers_core.load(); };
            spin([&] { return called() || in_the_way(); }, SPIN);
            if (in_the_way()) leave(callers_core.load(), process);
            if (!called() || in_the_way()) {
                std::unique_lock<std::mutex> guard(sleep);
                asleep.fetch_add(1);
                wake.wait(guard, called);
                asleep.fetch_sub(1);
            }
            {
                std::lock_guard<std::mutex> guard(sleep);
                seen = job.load(std::memory_order_relaxed);
                if (invited == 0 || in_the_way()) continue;
                --invited;
            }
            take();
            running.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex one_at_a_time, sleep;
    std::condition_variable wake;
    std::atomic<unsigned> job{0};
    std::atomic<int> asleep{0}, running{0}, callers_core{-1};
    std::atomic<int64> next{0};
    int invited = 0, alone = SHORTEST;
    Clock::time_point start, alone_until, wake_again;
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
