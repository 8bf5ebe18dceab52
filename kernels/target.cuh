// The targets of N neighbouring outputs, from rows of values or from integer labels.
// The loader puts above this:  typedef … Y;  the type of y: real for values, int for labels
#pragma once

template <int N>
__device__ void targets(const real* y, int64 row, int64 col, int64 cols, real* t) {
    const Pack<N, real> values = pack<N>(y + row * cols + col);
    for (int j = 0; j < N; ++j) t[j] = values.at[j];
}
template <int N>
__device__ void targets(const int* label, int64 row, int64 col, int64 cols, real* t) {
    for (int j = 0; j < N; ++j) t[j] = label[row] == col + j ? real(1) : real(0);
}

// whether y holds labels, and the label of a row
__device__ constexpr bool is_label(const int*) { return true; }
__device__ constexpr bool is_label(const real*) { return false; }
__device__ inline int64 label_of(const int* label, int64 row) { return label[row]; }
__device__ inline int64 label_of(const real*, int64) { return 0; }  // is not called
