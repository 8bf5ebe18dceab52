// Elementwise losses: J += Σ weights[row] · scale · value(ŷ, y), and gh = its gradient by ŷ.
//
// The entry supplies  real value(real y_hat, real y)  and  real gradient(real y_hat, real y).
// y is (rows, cols), or integer labels (rows): see target.cuh.
#include "common.cuh"
#include "target.cuh"

template <bool WITH_GRADIENT>
__device__ void loss_elements(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial,
                              int64 rows, int64 cols, real scale) {
    real sum = 0;
    for (int64 i = first(); i < rows * cols; i += stride()) {
        const int64 row = i / cols;
        const real a = real(y_hat[i]), t = target(y, row, i - row * cols, cols);
        const real share = real(weights[row]) * scale;
        sum += share * value(a, t);
        if (WITH_GRADIENT) gh[i] = T(share * gradient(a, t));
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial[block] ← the block's share of the loss
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const T* weights, real* partial, int64 rows, int64 cols, real scale) {
    loss_elements<false>(y_hat, y, weights, (T*)0, partial, rows, cols, scale);
}

// the same, and gh ← ∇_ŷ
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial, int64 rows, int64 cols,
 real scale) {
    loss_elements<true>(y_hat, y, weights, gh, partial, rows, cols, scale);
}
