// Products of few rows with a transpose, which do not repay a copy of it: sums along rows of both.
#pragma once

#include "tiles.hpp"

namespace gpumlp {

enum { FEW_ROWS = VECTOR_BYTES == 64 ? 48 : 12 };
enum { ROWS_AT_ONCE = TILE_ROWS / 2, COLUMNS_AT_ONCE = 4 };  // their sums stay in registers

// whether `multiply_few` computes the product; long rows repay the sums over lanes
template <class T> bool few_rows(int64 m, int64 k, View<T> a, View<T> b) {
    const int64 most = IS_16_BIT<T> ? 2 : least<int64>(FEW_ROWS, 2 + k / 32);
    return m <= most && a.column == 1 && b.row == 1;
}

// out (rows, columns) ← α a b + β out: sums in the lanes of a vector for each entry
template <int rows, int columns, class real>
__attribute__((noinline)) void dots(int64 k, View<real> a, View<real> b, real alpha, real beta,
                                    real* out, int64 out_row) {
    enum { WIDE = WIDTH<real> };
    Vector<real> sum[rows][columns] = {};
    const auto add = [&](auto x, auto w) {
        Vector<real> right[columns];
        GPUMLP_UNROLL
        for (int j = 0; j < columns; ++j) right[j] = w(j);
        GPUMLP_UNROLL
        for (int i = 0; i < rows; ++i) {
            const Vector<real> left = x(i);
            GPUMLP_UNROLL
            for (int j = 0; j < columns; ++j) sum[i][j] += left * right[j];
        }
    };
    int64 l = 0;
    for (; l + WIDE <= k; l += WIDE)
        add([&](int i) { return vector_at(a.data + i * a.row + l); },
            [&](int j) { return vector_at(b.data + j * b.column + l); });
    const auto last = [&](const real* from) {
        real part[WIDE] = {};
        copy_few<WIDE / 2>(part, from + l, k - l);
        return vector_at(part);
    };
    if (l < k)
        add([&](int i) { return last(a.data + i * a.row); },
            [&](int j) { return last(b.data + j * b.column); });
    GPUMLP_UNROLL
    for (int i = 0; i < rows; ++i)
        GPUMLP_UNROLL
        for (int j = 0; j < columns; ++j) {
            real lanes[WIDE], &there = out[i * out_row + j];
            vector_at(lanes) = sum[i][j];
            const real found = alpha * add_lanes<WIDE>(lanes);
            there = beta != 0 ? found + beta * there : found;
        }
}

// the same for at most ROWS_AT_ONCE rows and COLUMNS_AT_ONCE columns
template <int rows, class real>
void dots_of(int64 m, int64 n, int64 k, View<real> a, View<real> b, real alpha, real beta, real* out,
             int64 out_row) {
    if constexpr (rows > 1)
        if (m < rows) return dots_of<rows - 1>(m, n, k, a, b, alpha, beta, out, out_row);
    if (n == COLUMNS_AT_ONCE)
        return dots<rows, COLUMNS_AT_ONCE>(k, a, b, alpha, beta, out, out_row);
    for (int64 j = 0; j < n; ++j) dots<rows, 1>(k, a, b.from(0, j), alpha, beta, out + j, out_row);
}

// out (m, n) ← α a b + β out; no entry of b is read from memory twice
template <class T, class Out>
void multiply_few(int64 m, int64 n, int64 k, View<T> a, View<T> b, Arithmetic<T> alpha,
                  Arithmetic<T> beta, Out* out, int64 out_row) {
    using real = Arithmetic<T>;
    if constexpr (IS_16_BIT<T>) {
        for (int64 j = 0; j < n; ++j)
            for (int64 i = 0; i < m; ++i) {
                const T *const x = a.from(i, 0).data, *const w = b.from(0, j).data;
                const real sum = sum_of<real>(k, [&](int64 l) { return x[l] * w[l]; });
                Out& there = out[i * out_row + j];
                there = beta != 0 ? alpha * sum + beta * there : alpha * sum;
            }
    } else {
        for (int64 j = 0; j < n; j += COLUMNS_AT_ONCE)
            for (int64 i = 0; i < m; i += ROWS_AT_ONCE)
                dots_of<ROWS_AT_ONCE>(m - i, least<int64>(COLUMNS_AT_ONCE, n - j), k, a.from(i, 0),
                                      b.from(0, j), alpha, beta, out + i * out_row + j, out_row);
    }
}

}  // namespace gpumlp
