// Pieces of an operation, whose size depends on m and n alone, and sums over them.
#pragma once

#include <cstring>
#include <limits>

#include "math.hpp"
#include "program.hpp"

namespace gpumlp {

enum { LANES = 16, PIECE = 8192, LEAST_ROWS = 32, FEW = 512 };  // entries; rows of a matrix
// Rows that are fetched before their turn, and the bytes that one fetch brings.  The processor fetches
// by itself what follows on the same page, but the next row may lie on another.
enum { AHEAD = 16, LINE = 64 };

// −1, 0 or 1; NaN stays NaN
template <class real> inline real sign(real x) {
    return x > real(0) ? real(1) : x < real(0) ? real(-1) : x;
}
// a b, and 0 if a is 0, whatever b is: a target or weight of 0 excludes an output or example
template <class real> inline real times(real a, real b) { return a == real(0) ? real(0) : a * b; }

template <class real> const real& least(const real& a, const real& b) { return b < a ? b : a; }

inline int64 piece_rows(int64 n) {
    return n < PIECE / LEAST_ROWS ? PIECE / n / LEAST_ROWS * LEAST_ROWS : LEAST_ROWS;
}

// Rows whose sum is stored before all sums are added up; of few rows fewer, so that threads can share
// them.  A piece has a multiple.
inline int64 summed_rows(int64 m) { return m <= FEW ? LEAST_ROWS / 2 : LEAST_ROWS; }
inline int64 row_sums(int64 m) { return (m + summed_rows(m) - 1) / summed_rows(m); }

// Do an operation on all rows of (m, n).
inline void over_rows(const Threads& threads, int64 m, int64 n, void (*on_rows)(const void*, const Part&),
                      const void* arguments) {
    over(threads, m, piece_rows(n), [&](int64 begin, int64 end, int64) {
        on_rows(arguments, {begin, 0, end - begin, n});
    });
}

// Call f(begin, end, number) for the rows of each sum in [begin, end), of m.
template <class F> inline void over_sums(int64 m, int64 begin, int64 end, const F& f) {
    for (int64 each = summed_rows(m), next; begin < end; begin = next) {
        next = least((begin / each + 1) * each, end);
        f(begin, next, begin / each);
    }
}

// the sum of so many numbers, which are overwritten
template <int count = LANES, class real> inline real add_lanes(real* lanes) {
    GPUMLP_UNROLL
    for (int half = count / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k) lanes[k] += lanes[k + half];
    return lanes[0];
}

// Σ term(j) for j < n, in LANES sums: in one, the compiler could not use vectors
template <class real, class F> inline real sum_of(int64 n, const F& term) {
    real lanes[LANES] = {};
    int64 j = 0;
    for (; j + LANES <= n; j += LANES)
        for (int k = 0; k < LANES; ++k) lanes[k] += term(j + k);
    real sum = j > 0 ? add_lanes(lanes) : real(0);
    for (; j < n; ++j) sum += term(j);
    return sum;
}

// J ← J + Σ of the pieces' sums
inline void add_cost(const double* partial, int64 pieces, double* J) {
    double sum = 0;
    for (int64 i = 0; i < pieces; ++i) sum += partial[i];
    *J += sum;
}

}  // namespace gpumlp
