// Cross-entropy of softmax(ŷ) and y, for logits ŷ, and its gradient times the loss scale
// S = scaling[0].
//
// Blocks are (32, THREADS / 32): a warp works on one row at a time.  The entry supplies the
// constant smoothing.  y is (rows, cols), or integer labels (rows): see target.cuh.
#include "common.cuh"
#include "rows.cuh"
#include "target.cuh"

// the smoothed targets of N neighbouring outputs
template <int N>
__device__ void smoothed(const Y* y, int64 row, int64 col, int64 cols, real* t) {
    targets<N>(y, row, col, cols, t);
    for (int j = 0; j < N; ++j) t[j] = t[j] * (real(1) - smoothing) + smoothing / real(cols);
}

template <int N, bool WITH_GRADIENT>
__device__ void cross_entropy_rows(const T* y_hat, const Y* y, const real* weights,
                                   const double* scaling, T* gh, real* partial, int64 rows,
                                   int64 cols) {
    const real S = WITH_GRADIENT ? real(scaling[0]) : real(1);
    real all = 0;  // all lanes have equal values: only lane 0 counts the loss of a row
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const T* const x = y_hat + row * cols;
        const real share = weights[row];
        real top, sum, loss = 0, mass = 0, t[N];
        max_and_sum<N>(x, cols, top, sum);
        const real log_sum = log(sum);  // of ŷ − top, which is exact, whatever the logits' offset
        for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
            const Pack<N> a = pack<N>(x + c);
            smoothed<N>(y, row, c, cols, t);
            for (int j = 0; j < N; ++j) {
                loss += times(t[j], log_sum - (real(a.at[j]) - top));
                mass += t[j];
            }
        }
        loss = warp_sum(loss);
        mass = warp_sum(mass);
        if (threadIdx.x == 0) all += times(share, loss);
        if (WITH_GRADIENT) {
            const real scale = mass / sum;
            for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
                Pack<N> a = pack<N>(x + c);
                smoothed<N>(y, row, c, cols, t);
                for (int j = 0; j < N; ++j)
                    a.at[j] = T(times(S * share, exp(real(a.at[j]) - top) * scale - t[j]));
                pack<N>(gh + row * cols + c) = a;
            }
        }
    }
    all = block_sum(all);
    if (threadIdx.x == 0 && threadIdx.y == 0) partial[blockIdx.y] = all;
}

// partial[block] ← Σ weights · cross-entropy of softmax(ŷ) and the smoothed y, over its rows
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const real* weights, real* partial, int64 rows, int64 cols,
 int packed) {
    if (packed) cross_entropy_rows<PACK, false>(y_hat, y, weights, 0, 0, partial, rows, cols);
    else cross_entropy_rows<1, false>(y_hat, y, weights, 0, 0, partial, rows, cols);
}

// the same, and gh ← S ∇_ŷ L
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const real* weights, const double* scaling, T* gh, real* partial,
 int64 rows, int64 cols, int packed) {
    if (packed)
        cross_entropy_rows<PACK, true>(y_hat, y, weights, scaling, gh, partial, rows, cols);
    else cross_entropy_rows<1, true>(y_hat, y, weights, scaling, gh, partial, rows, cols);
}
