// Threads that share the pieces of an operation.  The calling thread works too.
//
// Each thread begins with pieces of its own, the same ones whenever an operation has so many pieces:
// what it wrote before is in its cache.  Then it takes what is left of the others'.  So which piece a
// thread takes is a matter of chance, but what a piece holds is not, and results have the same bits
// on any number of threads.  A thread without work soon sleeps.
//
// On a busy machine, a thread that is woken could take its caller's core, and one that works may
// lose its core in the middle of a piece.  So threads keep off their caller's core, those that came
// too late are not woken again at once, and after a long wait for a piece the caller does all
// pieces by itself for some time.  So it does while it often waits for a core of its own: a process
// gets no more of a busy machine by more threads, and those that spin cost it a part of its share.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <fcntl.h>
#include <mutex>
#include <sched.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "program.hpp"
#include "subnormals.hpp"

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

// true as soon as done() is; false after about so many microseconds, or if stop() is, which is asked
// now and then
template <class Done, class Stop> bool spin(Done done, int microseconds, Stop stop) {
    for (int i = 0; i < 64; ++i) {  // without a look at the clock
        if (done()) return true;
        pause_briefly();
    }
    const auto end = Clock::now() + std::chrono::microseconds(microseconds);
    do {
        if (stop()) return done();
        for (int i = 0; i < 64; ++i) {
            if (done()) return true;
            pause_briefly();
        }
    } while (Clock::now() < end);
    return false;
}

// Whether the calling thread waited for a core for a good part of the time lately.  A thread that
// sleeps, or waits for data or for a lock, does not wait for a core.
class Contention {
public:
    bool seen(Clock::time_point now) {
        const auto caller = std::this_thread::get_id();
        const bool fresh = caller != thread || now - last > std::chrono::milliseconds(IDLE);
        last = now;
        if (!fresh && now - begin < std::chrono::milliseconds(WINDOW)) return contended;
        const std::int64_t waited = wait_for_core();
        if (fresh) {
            thread = caller, contended = false;
        } else {
            const double share = double(waited - before) / double(std::chrono::nanoseconds(now - begin).count());
            contended = share > (contended ? LITTLE : MUCH) / 100.0;
        }
        begin = now, before = waited;
        return contended;
    }

private:
    enum { WINDOW = 10, IDLE = 30 };  // milliseconds; after a pause it begins anew
    enum { LITTLE = 5, MUCH = 15 };   // per cent of the time

    // nanoseconds that this thread has waited for a core; 0 where the system does not tell
    static std::int64_t wait_for_core() {
        std::int64_t waited = 0;
#if defined(__linux__)
        const int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        if (file < 0) return 0;
        char text[64];  // nanoseconds on a core, nanoseconds of waiting, time slices
        const ssize_t size = read(file, text, sizeof text - 1);
        close(file);
        text[size > 0 ? size : 0] = 0;
        long long on_a_core = 0, in_the_queue = 0;
        if (std::sscanf(text, "%lld %lld", &on_a_core, &in_the_queue) == 2) waited = in_the_queue;
#endif
        return waited;
    }

    std::thread::id thread;
    Clock::time_point last, begin;
    std::int64_t before = 0;
    bool contended = false;
};

class Pool {
public:
    Pool() : process(getpid()) {}
    const int process;  // a fork of it has no threads

    // Call work(operation, i) for i = 0 … pieces − 1 on at most `threads` threads.
    void run(Piece work, const void* operation, int64 pieces, int threads) {
        std::unique_lock<std::mutex> mine(one_at_a_time, std::try_to_lock);
        const int helpers = int(least_of(least_of(pieces, threads), 1 + MOST_HELPERS)) - 1;
        if (helpers < 1 || !mine || !invite(work, operation, pieces, helpers)) {
            for (int64 i = 0; i < pieces; ++i) work(operation, i);
            return;
        }
        take(0);
        withdraw(helpers);
        const auto finished = [this] { return running.load(std::memory_order_acquire) == 0; };
        const auto never = [] { return false; };
        for (int i = 0; i < 64; ++i) {
            if (finished()) return;
            pause_briefly();
        }
        const auto done = Clock::now();
        while (!spin(finished, SPIN, never)) std::this_thread::yield();
        const auto end = Clock::now();
        if (end - done > done - start + std::chrono::microseconds(STALL)) stalled(end, end - done);
    }

private:
    // Microseconds.  IDLE: before a sleep.  A wake took 50, and one thread does longer parts alone.
    enum { SPIN = 30, IDLE = 200, STALL = 100, WAKE = 1000 };
    enum { SHORTEST = 2, LONGEST = 16 };           // the time alone, in waits
    enum { MOST_HELPERS = 255 };

    // The pieces that one thread takes first: those from `next` on.
    struct alignas(64) Share {
        std::atomic<int64> next{0};
        int64 end = 0;
    };

    static int64 least_of(int64 a, int64 b) { return a < b ? a : b; }

    // Offer the pieces to the workers; false if it is better to do them alone.
    bool invite(Piece work, const void* operation, int64 pieces, int helpers) {
        start = Clock::now();
        if (contention.seen(start)) return false;
        while (int(workers.size()) < helpers) {
            const int number = int(workers.size()) + 1;
            workers.emplace_back([this, number] { serve(number); });
            workers.back().detach();
        }
        const int missing = helpers - (int(workers.size()) - asleep.load());
        const bool waking = missing > 0 && start >= wake_again;
        if (start < alone_until || (missing == helpers && !waking)) return false;
        this->work = work, this->operation = operation, sharers = helpers + 1;
        for (int t = 0; t < sharers; ++t) {
            shares[t].next.store(pieces * t / sharers, std::memory_order_relaxed);
            shares[t].end = pieces * (t + 1) / sharers;
        }
        callers_core.store(core(), std::memory_order_relaxed);
        running.store(helpers, std::memory_order_relaxed);
        offer.store(((offer.load(std::memory_order_relaxed) / OPEN + 1) * OPEN) + helpers);
        if (waking) {
            wake_again = start + std::chrono::microseconds(WAKE);
            const std::lock_guard<std::mutex> guard(sleep);
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

    // Do the pieces of the thread with this number, and then what is left of the others'.
    void take(int number) {
        for (int t = 0; t < sharers; ++t) {
            Share& share = shares[(number + t) % sharers];
            while (share.next.load(std::memory_order_relaxed) < share.end) {
                const int64 i = share.next.fetch_add(1, std::memory_order_relaxed);
                if (i < share.end) work(operation, i);
            }
        }
    }

    // Workers that have not begun yet are not waited for.
    void withdraw(int helpers) {
        const int left = int(offer.fetch_and(~std::uint64_t(OPEN - 1)) % OPEN);
        if (left < helpers) wake_again = {};  // it was worth it
        if (left > 0) running.fetch_sub(left, std::memory_order_acq_rel);
    }

    // Accept the job that is offered, if a place is left.
    template <class InTheWay> bool accept(std::uint64_t& seen, InTheWay in_the_way) {
        std::uint64_t now = offer.load(std::memory_order_acquire);
        seen = now / OPEN;
        while (now % OPEN > 0 && now / OPEN == seen && !in_the_way())
            if (offer.compare_exchange_weak(now, now - 1, std::memory_order_acq_rel)) return true;
        return false;
    }

    void serve(int number) {
        const SubnormalsAreZero fast;
        std::uint64_t seen = 0;
        for (;;) {
            const auto called = [&] { return offer.load() / OPEN != seen; };
            const auto in_the_way = [&] { return core() == callers_core.load(); };
            spin(called, IDLE, in_the_way);
            if (in_the_way()) leave(callers_core.load(), process);
            if (!called() || in_the_way()) {
                std::unique_lock<std::mutex> guard(sleep);
                asleep.fetch_add(1);
                wake.wait(guard, called);
                asleep.fetch_sub(1);
            }
            if (!accept(seen, in_the_way)) continue;
            take(number);
            running.fetch_sub(1, std::memory_order_release);
        }
    }

    enum { OPEN = 1 << 16 };
    std::mutex one_at_a_time, sleep;
    std::condition_variable wake;
    // The number of the job, times OPEN, and how many workers may still accept it.  While that is not
    // 0 or a worker is running, nobody writes what describes the job.
    alignas(64) std::atomic<std::uint64_t> offer{0};
    Piece work = nullptr;
    const void* operation = nullptr;
    int sharers = 0;
    std::atomic<int> callers_core{-1};
    alignas(64) std::atomic<int> running{0};
    alignas(64) std::atomic<int> asleep{0};
    int alone = SHORTEST;
    Contention contention;
    Clock::time_point start, alone_until, wake_again;
    std::vector<std::thread> workers;
    Share shares[1 + MOST_HELPERS];
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
