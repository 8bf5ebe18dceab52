// Matrix products: by tiles, or by NumPy's BLAS if they are large.
#pragma once

#include "tiles.hpp"

namespace gpumlp {

enum { FLOPS = 1 << 19 };  // of a piece for another thread: ten times what it costs to share

// out (m, n) ← α a b + β out with (α, β) = factors, or (1, 0).  a is (m, k) and b (k, n).
template <class real> struct Product {
    int64 m, n, k; View<real> a, b; real* out; const real* factors;
};

template <class real> void product(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Product<real>*>(arguments);
    const real alpha = p.factors ? p.factors[0] : real(1);
    const real beta = p.factors ? p.factors[1] : real(0);
    const bool by_columns = p.n >= PANEL<real> * 2 * threads.count;
    const int64 size = by_columns ? p.n : p.m, unit = by_columns ? PANEL<real> : TILE_ROWS;
    const int64 units = (size + unit - 1) / unit, worth = 2 * p.m * p.n * p.k / FLOPS;
    const int64 pieces = least<int64>(least<int64>(threads.count, worth), units);
    const int64 each = pieces > 1 ? (units + pieces - 1) / pieces * unit : size;
    over(threads, size, each, [&](int64 begin, int64 end, int64) {
        const int64 count = end - begin;
        if (by_columns)
            multiply(p.m, count, p.k, p.a, p.b.from(0, begin), alpha, beta, p.out + begin, p.n);
        else
            multiply(count, p.n, p.k, p.a.from(begin, 0), p.b, alpha, beta, p.out + begin * p.n,
                     p.n);
    }, 1);
}

// The same by a BLAS, cut into pieces of `each` rows or columns of out, each by one thread.  The
// flags are CBLAS's: 111, or 112 of a transpose.
template <class real, class size> struct BlasProduct {
    void (*gemm)(int, int, int, size, size, size, real, const real*, size, const real*, size, real,
                 real*, size);
    int64 m, n, k;
    const real* a; int64 a_flag, a_stride;
    const real* b; int64 b_flag, b_stride;
    real* out;
    const real* factors;
    int64 each, by_columns;
};

template <class real, class size> void blas_product(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const BlasProduct<real, size>*>(arguments);
    const real alpha = p.factors ? p.factors[0] : real(1);
    const real beta = p.factors ? p.factors[1] : real(0);
    const auto piece = [&](int64 begin, int64 end, int64) {
        const int64 count = end - begin;
        const real *a = p.a, *b = p.b;
        real* out = p.out;
        if (p.by_columns) {
            b += begin * (p.b_flag == 111 ? 1 : p.b_stride);
            out += begin;
        } else {
            a += begin * (p.a_flag == 111 ? p.a_stride : 1);
            out += begin * p.n;
        }
        p.gemm(101, int(p.a_flag), int(p.b_flag), size(p.by_columns ? p.m : count),
               size(p.by_columns ? count : p.n), size(p.k), alpha, a, size(p.a_stride), b,
               size(p.b_stride), beta, out, size(p.n));
    };
    over(threads, p.by_columns ? p.n : p.m, p.each, piece, 1);
}

}  // namespace gpumlp
