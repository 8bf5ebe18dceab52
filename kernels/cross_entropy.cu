// Cross-entropy of softmax(ŷ) and y, on logits ŷ, with its gradient.
//
// Blocks are (32, THREADS / 32): a warp works on one row at a time.  The entry supplies the constant
// smoothing;  y is (rows, cols), or integer labels (rows): see target.cuh.
#include "common.cuh"
#include "rows.cuh"
#include "target.cuh"

template <bool WITH_GRADIENT>
__device__ void cross_entropy(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial,
                              int64 rows, int64 cols) {
    real all = 0;  // lanes hold equal values: each row's loss counts in lane 0 alone
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const T* const x = y_hat + row * cols;
        const real share = real(weights[row]), floor = smoothing / real(cols);
        real top, sum, loss = 0, mass = 0;
        max_and_sum(x, cols, top, sum);
        const real log_sum = log(sum) + top;
        for (int64 c = threadIdx.x; c < cols; c += 32) {
            const real t = target(y, row, c, cols) * (real(1) - smoothing) + floor;
            loss += t * (log_sum - real(x[c]));
            mass += t;
        }
        loss = warp_sum(loss);
        mass = warp_sum(mass);
        if (threadIdx.x == 0) all += share * loss;
        if (WITH_GRADIENT) {
            const real scale = mass / sum;
            for (int64 c = threadIdx.x; c < cols; c += 32) {
                const real t = target(y, row, c, cols) * (real(1) - smoothing) + floor;
                gh[row * cols + c] = T(share * (exp(real(x[c]) - top) * scale - t));
            }
        }
    }
    all = block_sum(all);
    if (threadIdx.x == 0 && threadIdx.y == 0) partial[blockIdx.y] = all;
}

// partial[block] ← Σ weights · cross-entropy of softmax(ŷ) and the smoothed y, over its rows
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const T* weights, real* partial, int64 rows, int64 cols) {
    cross_entropy<false>(y_hat, y, weights, (T*)0, partial, rows, cols);
}

// the same, and gh ← ∇_ŷ
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial, int64 rows, int64 cols) {
    cross_entropy<true>(y_hat, y, weights, gh, partial, rows, cols);
}
