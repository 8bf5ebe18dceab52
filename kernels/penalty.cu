// λΩ(θ), its gradient, and the norm of the whole gradient, over the flat θ.
//
// The entry supplies  real omega(real theta)  and  real domega(real theta).  Weights come first,
// biases from `split` on, where λ is multiplied by bias_strength.  n is a multiple of PACK.
#include "common.cuh"

// partial[block] ← Σ λΩ(θ) and, where add is set, dθ ← dθ + λ∇Ω(θ)
GPUMLP_KERNEL(penalty, THREADS)
(const T* theta, T* dtheta, real* partial, int64 n, int64 split, real bias_strength, int add) {
    real sum = 0;
    for (int64 i = first() * PACK; i < n; i += stride() * PACK) {
        const real strength = i < split ? real(1) : bias_strength;
        const Pack<PACK> x = pack<PACK>(theta + i);
        for (int j = 0; j < PACK; ++j) sum += strength * omega(real(x.at[j]));
        if (add) {
            Pack<PACK> d = pack<PACK>(dtheta + i);
            for (int j = 0; j < PACK; ++j)
                d.at[j] = T(real(d.at[j]) + strength * domega(real(x.at[j])));
            pack<PACK>(dtheta + i) = d;
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial[block] ← Σ (dθ + λ∇Ω(θ))²
GPUMLP_KERNEL(squared_norm, THREADS)
(const T* theta, const T* dtheta, real* partial, int64 n, int64 split, real bias_strength) {
    real sum = 0;
    for (int64 i = first() * PACK; i < n; i += stride() * PACK) {
        const real strength = i < split ? real(1) : bias_strength;
        const Pack<PACK> x = pack<PACK>(theta + i), d = pack<PACK>(dtheta + i);
        for (int j = 0; j < PACK; ++j) {
            const real g = real(d.at[j]) + strength * domega(real(x.at[j]));
            sum += g * g;
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// control[0] ← min(1, max_norm / √Σ partial), by one block; NaN for a norm that is not finite
GPUMLP_KERNEL(clip, THREADS)
(const real* partial, double* control, int64 n, double max_norm) {
    double sum = 0;
    for (int64 i = threadIdx.x; i < n; i += THREADS) sum += double(partial[i]);
    const double norm = sqrt(block_sum(sum));
    if (threadIdx.x == 0) control[0] = norm <= max_norm ? 1.0 : max_norm / norm + 0.0 * norm;
}
