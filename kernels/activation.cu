// Forward pass: h = f(z + b).  Backward pass: gz = gh ⊙ f'(z) and its column sums, and h = f(z)
// again if h was not kept.
//
// The entry supplies  real f(real z)  and  real df(real z, real h).  Matrices are (rows, cols),
// row-major.  A block covers a tile of columns, see columns.cuh.
#include "common.cuh"
#include "columns.cuh"
#include "sums.cuh"

template <int N>
__device__ void bias_activation_tile(T* z, const T* b, T* h, int64 rows, int64 cols) {
    const int64 col = first() * N;
    if (col >= cols) return;
    const Pack<N> bias = pack<N>(b + col);
    down_columns<N>(z, rows, cols, [&](int64 i, Pack<N> a) {
        Pack<N> out;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            a.at[j] = T(real(a.at[j]) + real(bias.at[j]));
            out.at[j] = T(f(real(a.at[j])));
        }
        if (z != h) pack<N>(z + i) = a;
        pack<N>(h + i) = out;
    });
}

// z ← z + b, h ← f(z).  z may be h, and then only h is kept.  Of several networks: see member().
GPUMLP_KERNEL(bias_activation, THREADS)
(T* z, const T* b, T* h, int64 rows, int64 cols, int64 apart, int packed) {
    after_previous_launch();
    z += member() * rows * cols, h += member() * rows * cols, b += member() * apart;
    if (packed) bias_activation_tile<PACK>(z, b, h, rows, cols);
    else bias_activation_tile<1>(z, b, h, rows, cols);
}

template <int N>
__device__ void activation_tile(const T* z, T* h, int64 rows, int64 cols) {
    down_columns<N>(z, rows, cols, [&](int64 i, Pack<N> a) {
#pragma unroll
        for (int j = 0; j < N; ++j) a.at[j] = T(f(real(a.at[j])));
        pack<N>(h + i) = a;
    });
}

// h ← f(z), from the z that bias_activation has written.
GPUMLP_KERNEL(activation, THREADS)
(const T* z, T* h, int64 rows, int64 cols, int packed) {
    after_previous_launch();
    if (packed) activation_tile<PACK>(z, h, rows, cols);
    else activation_tile<1>(z, h, rows, cols);
}

template <int N>
__device__ void gradient_tile(const T* gh, const T* z, const T* h, T* gz, real* partial, T* db,
                              unsigned* arrived, int64 rows, int64 cols) {
    const int64 col = first() * N, next = row_stride() * cols, end = col < cols ? rows * cols : 0;
    real sum[N] = {};
    for (int64 i = first_row() * cols + col; i < end; i += ROWS * next) {
        Pack<N> g[ROWS] = {}, a[ROWS] = {}, out[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (i + r * next < end) {
                g[r] = pack<N>(gh + i + r * next);
                a[r] = pack<N>(z + i + r * next);
                out[r] = pack<N>(h + i + r * next);
            }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (i + r * next < end) {
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    const real slope = df(real(a[r].at[j]), real(out[r].at[j]));
                    g[r].at[j] = T(real(g[r].at[j]) * slope);
                    sum[j] += real(g[r].at[j]);
                }
                pack<N>(gz + i + r * next) = g[r];
            }
    }
    column_sums<N>(sum, partial, db, arrived, cols);
}

// gz ← gh ⊙ f'(z); db ← the column sums of gz.  gz may be gh.  If f' does not read z or h, any array
// of that shape can be passed for it.  partial, arrived: see column_sums.  Of several networks: see
// member().
GPUMLP_KERNEL(activation_gradient, THREADS)
(const T* gh, const T* z, const T* h, T* gz, real* partial, T* db, unsigned* arrived, int64 rows,
 int64 cols, int64 apart, int packed) {
    after_previous_launch();
    const int64 entries = member() * rows * cols;
    gh += entries, z += entries, h += entries, gz += entries, db += member() * apart;
    partial += member() * gridDim.y * cols, arrived += member() * column_counts();
    if (packed) gradient_tile<PACK>(gh, z, h, gz, partial, db, arrived, rows, cols);
    else gradient_tile<1>(gh, z, h, gz, partial, db, arrived, rows, cols);
}
