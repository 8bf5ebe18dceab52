// A block covers a tile of columns and walks down its share of the rows.  Each thread stays in its own
// columns, so that what belongs to a column, such as a bias or a sum, stays in registers.
#pragma once

enum { ROWS = 2 };  // in flight; with more, sm_100 spills

// Call f(i, entries) for x[i], …, x[i + N − 1] in each row of this thread; x is (rows, cols).  The entries
// of ROWS rows are read before f is called for them: it may write to arrays that are x, so the compiler
// cannot move a read before a write.
template <int N, class F>
__device__ inline void down_columns(const T* x, int64 rows, int64 cols, const F& f) {
    const int64 col = first() * N, next = row_stride() * cols, end = col < cols ? rows * cols : 0;
    for (int64 i = first_row() * cols + col; i < end; i += ROWS * next) {
        Pack<N> a[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (i + r * next < end) a[r] = pack<N>(x + i + r * next);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (i + r * next < end) f(i + r * next, a[r]);
    }
}
