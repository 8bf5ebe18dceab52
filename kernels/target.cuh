// The target of one output, from rows of values or from integer labels.
// The loader puts above this:  typedef … Y;  the type of y: T for values, int for labels
#pragma once

__device__ inline real target(const T* y, int64 row, int64 col, int64 cols) {
    return real(y[row * cols + col]);
}
__device__ inline real target(const int* label, int64 row, int64 col, int64 cols) {
    return label[row] == col ? real(1) : real(0);
}
