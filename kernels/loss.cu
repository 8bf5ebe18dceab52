// Elementwise losses: J += Σ weights[row] · scale · value(ŷ, y), and gh = its gradient by ŷ.
//
// The entry supplies  real value(real y_hat, real y)  and  real gradient(real y_hat, real y).
// y is (rows, cols), or integer labels (rows): see target.cuh.
#include "common.cuh"
#include "target.cuh"

template <int N, bool WITH_GRADIENT>
__device__ void loss_elements(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial,
                              int64 rows, int64 cols, real scale) {
    real sum = 0, t[N];
    for (int64 i = first() * N; i < rows * cols; i += stride() * N) {
        const int64 row = i / cols;
        const real share = real(weights[row]) * scale;
        Pack<N> a = pack<N>(y_hat + i);
        targets<N>(y, row, i - row * cols, cols, t);
        for (int j = 0; j < N; ++j) {
            const real output = real(a.at[j]);
            sum += share * value(output, t[j]);
            if (WITH_GRADIENT) a.at[j] = T(share * gradient(output, t[j]));
        }
        if (WITH_GRADIENT) pack<N>(gh + i) = a;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial[block] ← the block's share of the loss
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const T* weights, real* partial, int64 rows, int64 cols, int packed,
 real scale) {
    if (packed) loss_elements<PACK, false>(y_hat, y, weights, (T*)0, partial, rows, cols, scale);
    else loss_elements<1, false>(y_hat, y, weights, (T*)0, partial, rows, cols, scale);
}

// the same, and gh ← ∇_ŷ
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial, int64 rows, int64 cols,
 int packed, real scale) {
    if (packed) loss_elements<PACK, true>(y_hat, y, weights, gh, partial, rows, cols, scale);
    else loss_elements<1, true>(y_hat, y, weights, gh, partial, rows, cols, scale);
}
