// Elementwise losses: J += Σ weights[row] · share · value(ŷ, y), and gh = its gradient with respect
// to ŷ, times the loss scale S = scaling[0], and the column sums of gh.
//
// The entry supplies  real value(real y_hat, real y)  and  real gradient(real y_hat, real y).
// y is (rows, cols), or integer labels (rows): see target.cuh.  A block covers a tile of columns and
// walks down its share of the rows.  partial, arrived: see sums.cuh; arrived[0] is for J.
#include "common.cuh"
#include "sums.cuh"
#include "cost.cuh"
#include "target.cuh"

template <int N, bool WITH_GRADIENT>
__device__ real loss_tile(const T* y_hat, const Y* y, const real* weights, real S, T* gh, real* sum,
                          int64 rows, int64 cols, real share) {
    const int64 col = first() * N;
    real all = 0, t[N];
    if (col >= cols) return all;
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const real weight = weights[row] * share;
        Pack<N> a = pack<N>(y_hat + row * cols + col);
        targets<N>(y, row, col, cols, t);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const real output = real(a.at[j]);
            all += times(weight, value(output, t[j]));
            if constexpr (WITH_GRADIENT) {
                a.at[j] = T(times(S * weight, gradient(output, t[j])));
                sum[j] += real(a.at[j]);
            }
        }
        if constexpr (WITH_GRADIENT) pack<N>(gh + row * cols + col) = a;
    }
    return all;
}

template <int N>
__device__ real gradient_tile(const T* y_hat, const Y* y, const real* weights, real S, T* gh,
                              real* partial, T* db, unsigned* arrived, int64 rows, int64 cols,
                              real share) {
    real sum[N] = {};
    const real all = loss_tile<N, true>(y_hat, y, weights, S, gh, sum, rows, cols, share);
    column_sums<N>(sum, partial, db, arrived, cols);
    return all;
}

// J ← J + the loss
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const real* weights, real* partial, unsigned* arrived, double* J,
 int64 rows, int64 cols, int packed, real share) {
    after_previous_launch();
    const real all = packed ? loss_tile<PACK, false>(y_hat, y, weights, 1, 0, 0, rows, cols, share)
                            : loss_tile<1, false>(y_hat, y, weights, 1, 0, 0, rows, cols, share);
    add_to_cost(all, partial, arrived, J);
}

// the same, and gh ← S ∇_ŷ L, db ← the column sums of gh; steps > 0: the training step ends, too.
// Of several networks: see member(); then steps is 0.
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const real* weights, const double* scaling, T* gh, real* partial, T* db,
 unsigned* arrived, double* J, int64* position, double* costs, int64 steps, int64 rows, int64 cols,
 int64 apart, int packed, real share) {
    after_previous_launch();
    const int64 entries = member() * rows * cols;
    y_hat += entries, gh += entries, y += member() * rows * (is_label(y) ? 1 : cols);
    weights += member() * rows, scaling += 4 * member(), db += member() * apart, J += member();
    const real S = real(scaling[0]);
    real* const sums = partial + gridDim.x * gridDim.y * gridDim.z + member() * gridDim.y * cols;
    unsigned* const counts = arrived + gridDim.z + member() * column_counts();
    partial += member() * gridDim.x * gridDim.y, arrived += member();
    const real all =
        packed ? gradient_tile<PACK>(y_hat, y, weights, S, gh, sums, db, counts, rows, cols, share)
               : gradient_tile<1>(y_hat, y, weights, S, gh, sums, db, counts, rows, cols, share);
    if (add_to_cost(all, partial, arrived, J) && steps > 0 && thread() == 0)
        end_step(position, J, costs, steps, 1);
}
