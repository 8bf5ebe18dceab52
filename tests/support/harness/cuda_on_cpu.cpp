// The scheduler of cuda_on_cpu.h.  It is compiled without sanitizers, so that they check only the
// kernels.
//
// Every CUDA thread of a block is a fiber on one OS thread.  A fiber runs until its thread ends or
// waits at a barrier or a warp operation.  A warp runs until all its threads wait at a block
// barrier or have ended; then the next warp runs.  The caller chooses the order of blocks, warps
// and lanes.  So:
//   * a run repeats exactly, and runs in other orders show races;
//   * a wait that can never end is found immediately and reported with file and line.
// Threads that never wait need only one fiber for their whole warp.
#include "cuda_on_cpu.h"

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "fibers.h"

namespace cuda_on_cpu {
namespace {

constexpr int MOST_WAITS = 1000000;  // of one block; more count as an endless loop

enum State { NEW, READY, WAITING, DONE };

struct Thread {
    Index index{};
    int number = 0;  // in the block, x fastest
    State state = NEW;
    Fiber* fiber = nullptr;  // the fiber on which the thread waits
    Kind kind = BLOCK;       // what the thread waits for, and where
    Site site{};
    unsigned mask = 0;    // of the warp operation
    int source = 0;       // the lane that the shuffle reads
    uint64_t value = 0;   // the input of the shuffle
    uint64_t result = 0;  // the output of the shuffle
};

// A point where threads meet, for ThreadSanitizer.  Two points alternate, because a thread may come
// to the next barrier before another thread has left this one.
struct Meeting {
    unsigned count = 0;
    char point[2];
    void* now() { return &point[count % 2]; }
};

void fiber_main();

struct Machine {
    Index grid{}, block{}, block_index{};
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
    std::vector<std::unique_ptr<char[]>> dynamic;  // shared memory; the last one is the block's
    std::vector<Thread> threads;
    std::vector<std::vector<int>> warps;     // the threads' numbers, in running order
    const std::vector<int>* warp = nullptr;  // the one that runs
    size_t next = 0;                         // place in it after the thread that runs
    Thread* now = nullptr;                   // the thread that runs
    int waits_left = 0;
    Meeting meetings[33];  // the block's, then each warp's
    Fibers fibers{fiber_main};
    std::string error;
} m;

void fiber_main() {
    m.fibers.entered();
    for (;;) {
        m.body(m.argument);
        m.now->state = DONE;
#if defined(WITH_TSAN)  // it needs one fiber for each thread
        __tsan_release(&m);
#else
        while (m.next < m.warp->size() && m.threads[(*m.warp)[m.next]].state != NEW) ++m.next;
        if (m.next < m.warp->size()) {
            m.now = &m.threads[(*m.warp)[m.next++]];
            continue;
        }
        m.fibers.give_back();
#endif
        m.fibers.to_scheduler();
    }
}

// ---- messages --------------------------------------------------------------------------------

std::string text(const Index& v) {
    return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

std::string describe(const Thread& t) {
    static const char* const what[] = {"__syncthreads", "__syncwarp", "a shuffle"};
    std::string s = "block " + text(m.block_index) + " thread " + text(t.index);
    if (t.state == DONE) return s + " has ended";
    const char* const slash = strrchr(t.site.file, '/');
    return s + " at " + what[t.kind] + " in " + (slash ? slash + 1 : t.site.file) + ":" +
           std::to_string(t.site.line);
}

bool same_place(const Thread& a, const Thread& b) {
    return a.state == b.state && a.kind == b.kind && a.site.line == b.site.line && a.mask == b.mask;
}

std::string deadlock() {
    std::string s = "deadlock:";
    const Thread* last = nullptr;
    for (const Thread& t : m.threads)
        if (!last || !same_place(t, *last)) {
            s += (last ? "; " : " ") + describe(t);
            last = &t;
        }
    return s;
}

// ---- barriers and warp operations ------------------------------------------------------------

// Let the threads continue if all that have not ended wait at the same __syncthreads.
bool release_block() {
    const Thread* first = nullptr;
    for (const Thread& t : m.threads) {
        if (t.state == DONE) continue;
        if (t.state != WAITING || t.kind != BLOCK) return false;
        if (first && !same_place(*first, t)) {
            m.error = "divergent barrier: " + describe(*first) + ", but " + describe(t);
            return false;
        }
        first = &t;
    }
    for (Thread& t : m.threads)
        if (t.state == WAITING) t.state = READY;
    ++m.meetings[0].count;
    return first != nullptr;
}

// Let the lanes at the operation of `model` continue, if all lanes of its mask that have not ended
// wait there.
bool release_warp_operation(const Thread& model) {
    const int first = model.number / 32 * 32;
    const int lanes = std::min(32, int(m.threads.size()) - first);
    Thread* const warp = &m.threads[first];
    unsigned ended = lanes < 32 ? ~0u << lanes : 0, here = 0;
    for (int i = 0; i < lanes; ++i) {
        if (warp[i].state == DONE) ended |= 1u << i;
        if (same_place(warp[i], model)) here |= 1u << i;
    }
    if (model.mask & ~ended & ~here) return false;
    for (int i = 0; i < lanes; ++i) {
        Thread& t = warp[i];
        if (!(here >> i & 1)) continue;
        if (t.kind == SHUFFLE && !(here >> t.source & 1)) {
            m.error = describe(t) + " reads lane " + std::to_string(t.source) +
                      ", which takes no part";
            return false;
        }
        t.result = warp[t.source].value;  // has no meaning after __syncwarp
    }
    for (int i = 0; i < lanes; ++i)
        if (here >> i & 1) warp[i].state = READY;
    ++m.meetings[1 + first / 32].count;
    return true;
}

// ---- one block -------------------------------------------------------------------------------

Index at(uint64_t i, const Index& size) {
    return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

// Run one warp until all its threads have ended or wait for another warp.
void run_warp(const std::vector<int>& warp) {
    m.warp = &warp;
    for (bool more = true; more;) {
        for (size_t k = 0; k < warp.size(); ++k) {
            Thread& t = m.threads[warp[k]];
            if (t.state != NEW && t.state != READY) continue;
            Fiber* const fiber = t.state == NEW ? m.fibers.acquire() : t.fiber;
            t.state = READY;
            m.next = k + 1;
            m.now = &t;
            m.fibers.switch_to(*fiber);
            if (!m.error.empty()) return;
            if (--m.waits_left < 0) m.error = "endless loop? " + describe(t);
        }
        more = false;
        for (int i : warp) {
            const Thread t = m.threads[i];
            if (t.state == WAITING && t.kind != BLOCK) more |= release_warp_operation(t);
            if (!m.error.empty()) return;
        }
    }
}

// Fill shared memory with 0xff bytes, which are NaN as float, half and bfloat16.
void new_shared_memory(char* begin, char* end, size_t dynamic_bytes) {
#if defined(WITH_TSAN)  // new memory, or accesses of the block before would count as races
    if (begin != end)
        mmap(begin, end - begin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0);
#else
    m.dynamic.clear();  // under ThreadSanitizer, freeing it there would count as a race
#endif
    for (char* p = begin; p < end; ++p) *p = char(0xff);
    m.dynamic.emplace_back(new char[dynamic_bytes]);
    std::fill_n(m.dynamic.back().get(), dynamic_bytes, char(0xff));
}

void run_block() {
    for (size_t i = 0; i < m.threads.size(); ++i) {
        Thread& t = m.threads[i] = Thread();
        t.number = int(i);
        t.index = at(i, m.block);
    }
    m.waits_left = MOST_WAITS;
    const auto done = [](const Thread& t) { return t.state == DONE; };
    do {
        for (const auto& warp : m.warps) {
            run_warp(warp);
            if (!m.error.empty()) return;
        }
        if (std::all_of(m.threads.begin(), m.threads.end(), done)) return;
    } while (release_block());
    if (m.error.empty()) m.error = deadlock();
}

// ---- one launch ------------------------------------------------------------------------------

uint64_t count(const unsigned* size) { return uint64_t(size[0]) * size[1] * size[2]; }

// the reason why the driver would refuse the launch, or ""
std::string refusal(const Launch& request, unsigned most_threads) {
    const uint64_t threads = count(request.block), blocks = count(request.grid);
    if (threads > most_threads)
        return std::to_string(threads) + " threads a block, but its launch bound is " +
               std::to_string(most_threads);
    if (threads == 0 || threads > 1024 || request.block[2] > 64 || blocks == 0 ||
        request.grid[0] > 0x7fffffffu || request.grid[1] > 65535 || request.grid[2] > 65535 ||
        request.dynamic_bytes > 227 * 1024 || request.first_block + request.blocks > blocks)
        return "invalid launch configuration";
    return "";
}

// Run the blocks in this order.  If the order is a shuffle, each block shuffles its warps again.
template <class Arrange>
void run_blocks(const std::vector<uint64_t>& sequence, const Launch& request, char* shared_begin,
                char* shared_end, const Arrange& arrange) {
    for (const uint64_t b : sequence) {
        if (request.order > 1) arrange(m.warps);
        m.block_index = at(b, m.grid);
        new_shared_memory(shared_begin, shared_end, request.dynamic_bytes);
        run_block();
        if (!m.error.empty()) return;
#if defined(WITH_TSAN)  // it supports at most 8128 fibers; races of a dropped fiber are lost
        if (m.fibers.count() + m.threads.size() > 8000) m.fibers.drop();
#endif
    }
}

}  // namespace

// ---- what the header declares ----------------------------------------------------------------

const Index& thread_index() { return m.now->index; }
const Index& block_index() { return m.block_index; }
const Index& block_size() { return m.block; }
const Index& grid_size() { return m.grid; }
int lane() { return m.now->number % 32; }
void* dynamic_shared() { return m.dynamic.back().get(); }

uint64_t wait(Kind kind, Site site, unsigned mask, uint64_t value, int source) {
    Thread& t = *m.now;
    t.kind = kind;
    t.site = site;
    t.mask = mask;
    t.value = value;
    t.source = source;
    t.state = WAITING;
    t.fiber = m.fibers.running();
    if (kind != BLOCK && !(mask >> (t.number % 32) & 1))
        m.error = describe(t) + " is not in the operation's own mask";
#if defined(WITH_TSAN)
    void* const meeting = m.meetings[kind == BLOCK ? 0 : 1 + t.number / 32].now();
    __tsan_release(meeting);
    m.fibers.to_scheduler();
    __tsan_acquire(meeting);
#else
    m.fibers.to_scheduler();
#endif
    return t.result;
}

const char* text_of(const Type* types, size_t count) {
    static std::string s;
    s.clear();
    for (const Type* t = types; t != types + count; ++t) {
        s += t->kind + std::to_string(t->bytes);
        s += t->pointer ? t->constant ? "*const " : "* " : " ";
    }
    return s.c_str();
}

const char* run(const Launch& request, unsigned most_threads, char* shared_begin, char* shared_end,
                void (*body)(void*), void* argument) {
    m.error = refusal(request, most_threads);
    if (!m.error.empty()) return m.error.c_str();
    m.grid = Index{request.grid[0], request.grid[1], request.grid[2]};
    m.block = Index{request.block[0], request.block[1], request.block[2]};
    m.body = body;
    m.argument = argument;
    m.fibers.launch();
    std::mt19937 random(request.order);
    const auto arrange = [&](auto& list) {
        if (request.order == 1) std::reverse(list.begin(), list.end());
        if (request.order > 1) std::shuffle(list.begin(), list.end(), random);
    };
    const uint64_t threads = count(request.block);
    m.threads.resize(threads);
    m.warps.assign((threads + 31) / 32, {});
    for (uint64_t i = 0; i < threads; ++i) m.warps[i / 32].push_back(int(i));
    for (auto& warp : m.warps) arrange(warp);
    arrange(m.warps);
    std::vector<uint64_t> sequence(request.blocks ? request.blocks : count(request.grid));
    std::iota(sequence.begin(), sequence.end(), request.first_block);
    arrange(sequence);
    run_blocks(sequence, request, shared_begin, shared_end, arrange);
    if (!m.error.empty()) {
        m.fibers.drop();  // some of them are still inside the kernel
        return m.error.c_str();
    }
#if defined(WITH_TSAN)
    __tsan_acquire(&m);  // the launch has ended, and all its writes are visible
    m.dynamic.clear();
    m.fibers.drop();
#endif
    return nullptr;
}

}  // namespace cuda_on_cpu
