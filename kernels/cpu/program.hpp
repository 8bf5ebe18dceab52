// A program on the CPU: a list of operations with their arguments, run in one call.
//
// The arguments of an operation are a struct of fields of 8 bytes: pointers, int64 and double, in
// the order in which gpumlp/backends/cpu/lowering.py writes them.
#pragma once

#include <cstdint>

#define GPUMLP_EXPORT extern "C" __attribute__((visibility("default")))

#if defined(__clang__)
#define GPUMLP_LOOP _Pragma("clang loop vectorize(assume_safety)")
#define GPUMLP_SHORT_LOOP GPUMLP_LOOP
#define GPUMLP_UNROLL _Pragma("unroll")
#else
#define GPUMLP_UNROLL _Pragma("GCC unroll 16")
#define GPUMLP_LOOP _Pragma("GCC ivdep")  // same entries of several arrays may be one memory
#define GPUMLP_SHORT_LOOP GPUMLP_LOOP _Pragma("GCC unroll 1")  // else it is unrolled, without vectors
#endif

// of the functions of entries: a compiler cannot vectorise a loop with a call
#define GPUMLP_INLINED inline __attribute__((always_inline))

namespace gpumlp {

typedef int64_t int64;
typedef void (*Piece)(const void* operation, int64 piece);

// The threads of a program.  share calls piece(operation, i) for all i < pieces on at most so many.
struct Threads {
    int count;
    void (*share)(Piece piece, const void* operation, int64 pieces, int threads);
};

struct Call {
    void (*work)(const void* arguments, const Threads& threads);
    const void* arguments;
};

// The entries of a matrix in rows [i, i + m) and columns [j, j + n).
struct Part { int64 i, j, m, n; };

// An operation on the result of another.  `part` does it on whole columns as soon as they are there,
// while they are in a core's cache, and `work` on all of them; both null if there is none.
struct Next {
    void (*part)(const void* arguments, const Part& columns);
    void (*work)(const void* arguments, const Threads& threads);
    const void* arguments;
};

// Call f(begin, end, piece) for the pieces of [0, size), `each` entries long.  A thread gets at
// least `share` pieces: fewer are done sooner than another thread wakes.
template <class F>
void over(const Threads& threads, int64 size, int64 each, const F& f, int64 share = 2) {
    struct Work { const F* f; int64 size, each; };
    const Work work = {&f, size, each};
    const Piece piece = [](const void* p, int64 i) {
        const Work& w = *static_cast<const Work*>(p);
        const int64 begin = i * w.each, end = begin + w.each;
        (*w.f)(begin, end < w.size ? end : w.size, i);
    };
    const int64 pieces = (size + each - 1) / each, most = pieces / share;
    if (most > 1 && threads.count > 1)
        threads.share(piece, &work, pieces, int(most < threads.count ? most : threads.count));
    else
        for (int64 i = 0; i < pieces; ++i) piece(&work, i);
}

}  // namespace gpumlp
