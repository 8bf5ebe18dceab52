// Gated linear units of rows (a | b): y = a ⊙ f(b), and the gradient (gy ⊙ f(b) | gy ⊙ a ⊙ f'(b))
// with its column sums.
//
// The entry supplies  real f(real z)  and  real df(real z, real h).  y is (rows, cols), x twice as
// wide.  A block covers a tile of columns of y, and reads the entries of ROWS rows before it writes
// any, see columns.cuh.
#include "common.cuh"
#include "columns.cuh"
#include "sums.cuh"

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

// 2 blocks on a multiprocessor leave 128 registers for the entries and column sums of a thread
#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT 2

template <int N>
__device__ void gradient_tile(const T* x, const T* gy, T* gx, real* partial, T* db,
                              unsigned* arrived, int64 rows, int64 cols) {
    const int64 col = first() * N, next = row_stride(), end = col < cols ? rows : 0;
    real sum[2][N] = {};
    for (int64 row = first_row(); row < end; row += ROWS * next) {
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
                    sum[0][j] += real(a[r].at[j]);
                    sum[1][j] += real(b[r].at[j]);
                }
                T* const own = gx + (row + r * next) * 2 * cols + col;
                pack<N>(own) = a[r];
                pack<N>(own + cols) = b[r];
            }
    }
    column_sums<N>(sum[0], partial, db, arrived, cols);
    __syncthreads();  // the sums of the other half take the same shared memory
    column_sums<N>(sum[1], partial + gridDim.y * cols, db + cols, arrived + column_counts(), cols);
}

// gx ← (gy ⊙ f(b) | gy ⊙ a ⊙ f'(b)); db ← the column sums of gx.  gx may be x.  partial: those of
// column_sums for each half, and so are the counts `arrived`.  Of several networks: see member().
GPUMLP_KERNEL(stage_gradient, THREADS)
(const T* x, const T* gy, T* gx, real* partial, T* db, unsigned* arrived, int64 rows, int64 cols,
 int64 apart, int packed) {
    after_previous_launch();
    const int64 entries = member() * rows * cols;
    x += 2 * entries, gy += entries, gx += 2 * entries, db += member() * apart;
    partial += member() * 2 * gridDim.y * cols, arrived += member() * 2 * column_counts();
    if (packed) gradient_tile<PACK>(x, gy, gx, partial, db, arrived, rows, cols);
    else gradient_tile<1>(x, gy, gx, partial, db, arrived, rows, cols);
}
