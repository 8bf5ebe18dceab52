// Rows by index.
#pragma once

// out[row] ← source[index[row]] for N neighbouring columns from `col`, and for row, row + stride, …;
// several rows are read at a time, because each waits for its index first
template <int N, class S>
__device__ void gather_rows(const S* source, const int64* index, S* out, int64 rows, int64 cols,
                            int64 col, int64 row, int64 stride) {
    enum { ROWS = 4 };
    if (col >= cols) return;
    for (; row < rows; row += ROWS * stride) {
        Pack<N, S> a[ROWS] = {};
        for (int r = 0; r < ROWS; ++r)
            if (row + r * stride < rows)
                a[r] = pack<N>(source + index[row + r * stride] * cols + col);
        for (int r = 0; r < ROWS; ++r)
            if (row + r * stride < rows) pack<N>(out + (row + r * stride) * cols + col) = a[r];
    }
}

// out[i] ← weights[index[i]] / Σ weights[index], or 0 if the sum is 0; in one block
__device__ inline void shares(const real* weights, const int64* index, real* out, int64 n) {
    real sum = 0;
    for (int64 i = thread(); i < n; i += THREADS) sum += weights[index[i]];
    sum = block_sum(sum);
    for (int64 i = thread(); i < n; i += THREADS)
        out[i] = sum > real(0) ? weights[index[i]] / sum : real(0);
}
