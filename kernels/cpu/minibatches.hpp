// The rows of a minibatch, and the begin and the end of a step.
#pragma once

#include "pieces.hpp"

namespace gpumlp {

// out ← source[index], rows of so many bytes.  The next step gathers the rows order[i …], for
// i = (position + 1) step + start < entries: if they are few, they are fetched already now, into the
// second cache.  `order` is null if it is unknown.
struct Gather {
    const char* source; const int64* index; char* out; int64 m, bytes;
    const int64 *order, *position; int64 step, start, entries;
};
enum { FETCHED = 65536 };  // bytes of a piece, and at most of what is fetched for the next step

// to ← from, as memcpy, whose call takes as long as the copy of a short row
inline void copy_row(char* to, const char* from, int64 bytes) {
    enum { STEP = 32 };
    if (bytes < STEP || bytes > 16 * STEP) return (void)std::memcpy(to, from, bytes);
    for (int64 i = 0; i < bytes - STEP; i += STEP) std::memcpy(to + i, from + i, STEP);
    std::memcpy(to + bytes - STEP, from + bytes - STEP, STEP);
}

inline void gather_on_rows(const void* arguments, const Part& part) {
    enum { MOST = 512 };  // bytes of a row that are fetched
    const auto& p = *static_cast<const Gather*>(arguments);
    const int64 begin = part.i, end = part.i + part.m;
    const auto fetch = [&](int64 i) {  // the first lines; the processor fetches those behind
        const char* const row = p.source + p.index[i] * p.bytes;
        for (int64 at = 0; at < least<int64>(p.bytes, MOST); at += LINE) __builtin_prefetch(row + at);
    };
    if (p.bytes == 4) {  // labels
        for (int64 i = begin; i < end; ++i)
            std::memcpy(p.out + 4 * i, p.source + 4 * p.index[i], 4);
    } else {
        for (int64 i = begin; i < least(begin + AHEAD, end); ++i) fetch(i);
        for (int64 i = begin; i < end; ++i) {
            if (i + AHEAD < end) fetch(i + AHEAD);
            copy_row(p.out + i * p.bytes, p.source + p.index[i] * p.bytes, p.bytes);
        }
    }
    if (p.order == nullptr || part.m * p.bytes > FETCHED) return;
    const int64 next = (*p.position + 1) * p.step + p.start;
    for (int64 i = next + begin; i < least(next + end, p.entries); ++i) {
        const char* const row = p.source + p.order[i] * p.bytes;
        for (int64 at = 0; at < p.bytes; at += LINE) __builtin_prefetch(row + at, 0, 2);
    }
}

inline void gather(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Gather*>(arguments);
    over(threads, p.m, FETCHED / (p.bytes + 1) + 1, [&](int64 begin, int64 end, int64) {
        gather_on_rows(arguments, {begin, 0, end - begin, 0});
    }, 1);
}

// out ← weights[index] / Σ weights[index], or zeros if the sum is 0
template <class real> struct MeanWeights {
    const real* weights; const int64* index; real* out; int64 m;
};

template <class real> void mean_weights(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const MeanWeights<real>*>(arguments);
    double sum = 0;
    for (int64 i = 0; i < p.m; ++i) sum += double(p.out[i] = p.weights[p.index[i]]);
    for (int64 i = 0; i < p.m; ++i) p.out[i] = sum > 0 ? real(p.out[i] / sum) : real(0);
}

// step t = position: index ← order[t size …], row t of controls → control and factors, J ← 0
template <class real> struct Begin {
    const int64 *position, *order; const double* controls; int64 size; int64* index; int64 m;
    double* control; int64 numbers; real* factors; double* J; int64 shards;
};

template <class real> void begin(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const Begin<real>*>(arguments);
    const int64 t = *p.position;
    const double* const row = p.controls + t * (p.numbers + 2);
    std::memcpy(p.index, p.order + t * p.size, p.m * sizeof(int64));
    std::memcpy(p.control, row, p.numbers * sizeof(double));
    p.factors[0] = real(row[p.numbers]), p.factors[1] = real(row[p.numbers + 1]);
    std::memset(p.J, 0, p.shards * sizeof(double));
}

// costs[t] ← J, (shards,); then t ← t + 1, or t ← 0 after the last step
struct End { int64* position; const double* J; double* costs; int64 steps, shards; };

inline void end(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const End*>(arguments);
    std::memcpy(p.costs + *p.position * p.shards, p.J, p.shards * sizeof(double));
    *p.position = (*p.position + 1) % p.steps;
}

}  // namespace gpumlp
