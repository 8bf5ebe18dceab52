// Elementwise losses: J += Σ weights[row] · share · value(ŷ, y), and gh = its gradient with respect
// to ŷ, times the loss scale S = scaling[0].
//
// The entry supplies  real value(real y_hat, real y)  and  real gradient(real y_hat, real y).
// y is (rows, cols), or integer labels (rows): see target.cuh.
#include "common.cuh"
#include "target.cuh"

template <int N, bool WITH_GRADIENT>
__device__ void loss_elements(const T* y_hat, const Y* y, const real* weights,
                              const double* scaling, T* gh, real* partial, int64 rows, int64 cols,
                              real share) {
    const real S = WITH_GRADIENT ? real(scaling[0]) : real(1);
    real sum = 0, t[N];
    for (int64 i = first() * N; i < rows * cols; i += stride() * N) {
        const int64 row = i / cols;
        const real weight = weights[row] * share;
        Pack<N> a = pack<N>(y_hat + i);
        targets<N>(y, row, i - row * cols, cols, t);
        for (int j = 0; j < N; ++j) {
            const real output = real(a.at[j]);
            sum += times(weight, value(output, t[j]));
            if (WITH_GRADIENT) a.at[j] = T(times(S * weight, gradient(output, t[j])));
        }
        if (WITH_GRADIENT) pack<N>(gh + i) = a;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial[block] ← the part of the loss that the block has computed
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const real* weights, real* partial, int64 rows, int64 cols, int packed,
 real share) {
    if (packed) loss_elements<PACK, false>(y_hat, y, weights, 0, 0, partial, rows, cols, share);
    else loss_elements<1, false>(y_hat, y, weights, 0, 0, partial, rows, cols, share);
}

// the same, and gh ← S ∇_ŷ L
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const real* weights, const double* scaling, T* gh, real* partial,
 int64 rows, int64 cols, int packed, real share) {
    if (packed)
        loss_elements<PACK, true>(y_hat, y, weights, scaling, gh, partial, rows, cols, share);
    else loss_elements<1, true>(y_hat, y, weights, scaling, gh, partial, rows, cols, share);
}
