// Gated linear units of rows (a | b): y = a ⊙ f(b), and the gradient (gy ⊙ f(b) | gy ⊙ a ⊙ f'(b)).
//
// The entry supplies  real f(real z)  and  real df(real z, real h).  y is (rows, cols), x twice as
// wide.  A block covers a tile of columns of y and walks down its share of the rows.  As in
// activation.cu, a thread reads the entries of ROWS rows before it writes any.
#include "common.cuh"

enum { ROWS = 2 };

template <int N> __device__ void gate_tile(const T* x, T* y, int64 rows, int64 cols) {
    const int64 col = first() * N, next = row_stride();
    if (col >= cols) return;
    for (int64 row = first_row(); row < rows; row += ROWS * next) {
        Pack<N> a[ROWS] = {}, b[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (row + r * next < rows) {
                const T* const own = x + (row + r * next) * 2 * cols + col;
                a[r] = pack<N>(own);
                b[r] = pack<N>(own + cols);
            }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (row + r * next < rows) {
#pragma unroll
                for (int j = 0; j < N; ++j)
                    a[r].at[j] = T(real(a[r].at[j]) * f(real(b[r].at[j])));
                pack<N>(y + (row + r * next) * cols + col) = a[r];
            }
    }
}

// y ← a ⊙ f(b)
GPUMLP_KERNEL(stage, THREADS)(const T* x, T* y, int64 rows, int64 cols, int packed) {
    after_previous_launch();
    if (packed) gate_tile<PACK>(x, y, rows, cols);
    else gate_tile<1>(x, y, rows, cols);
}

// 3 blocks on a multiprocessor leave 80 registers: with 64, sm_100 spills
#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT (sizeof(real) == 8 ? 2 : 3)

template <int N>
__device__ void gradient_tile(const T* x, const T* gy, T* gx, int64 rows, int64 cols) {
    const int64 col = first() * N, next = row_stride();
    if (col >= cols) return;
    for (int64 row = first_row(); row < rows; row += ROWS * next) {
        Pack<N> a[ROWS] = {}, b[ROWS] = {}, g[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (row + r * next < rows) {
                const T* const own = x + (row + r * next) * 2 * cols + col;
                a[r] = pack<N>(own);
                b[r] = pack<N>(own + cols);
                g[r] = pack<N>(gy + (row + r * next) * cols + col);
            }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (row + r * next < rows) {
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    const real z = real(b[r].at[j]), h = f(z), up = real(g[r].at[j]);
                    b[r].at[j] = T(up * real(a[r].at[j]) * df(z, h));
                    a[r].at[j] = T(up * h);
                }
                T* const own = gx + (row + r * next) * 2 * cols + col;
                pack<N>(own) = a[r];
                pack<N>(own + cols) = b[r];
            }
    }
}

// gx ← (gy ⊙ f(b) | gy ⊙ a ⊙ f'(b)).  gx may be x.
GPUMLP_KERNEL(stage_gradient, THREADS)
(const T* x, const T* gy, T* gx, int64 rows, int64 cols, int packed) {
    after_previous_launch();
    if (packed) gradient_tile<PACK>(x, gy, gx, rows, cols);
    else gradient_tile<1>(x, gy, gx, rows, cols);
}
