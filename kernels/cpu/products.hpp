// Matrix products, by the BLAS of NumPy.
#pragma once

#include "pieces.hpp"

namespace gpumlp {

// out ← α a b + β out with (α, β) = factors, or (1, 0).  a is (m, k) and b (k, n), as they are or
// transposed (CBLAS's flags 111 and 112).  The product is cut into `pieces` of rows or columns of
// out, each by one thread.
template <class real, class size> struct Product {
    void (*gemm)(int, int, int, size, size, size, real, const real*, size, const real*, size, real,
                 real*, size);
    int64 m, n, k;
    const real* a; int64 a_flag, a_stride;
    const real* b; int64 b_flag, b_stride;
    real* out;
    const real* factors;
    int64 each, by_columns;
};

template <class real, class size> void product(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Product<real, size>*>(arguments);
    const real alpha = p.factors ? p.factors[0] : real(1), beta = p.factors ? p.factors[1] : real(0);
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
