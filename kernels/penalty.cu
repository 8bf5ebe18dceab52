// λΩ(θ), its gradient, and the norm of the whole gradient, over the flat θ.
//
// The entry supplies  real omega(real theta)  and  real domega(real theta).  Weights come first.
// Biases start at `split`; there, λ is multiplied by bias_strength.  n is a multiple of PACK.
// The loader puts above this:  typedef … Grad;  the type of dθ in squared_norm: T, or real
#include "common.cuh"

// partial[block] ← Σ λΩ(θ) and, if add is set, dθ ← dθ + λ∇Ω(θ)
GPUMLP_KERNEL(penalty, THREADS)
(const real* theta, T* dtheta, real* partial, int64 n, int64 split, real bias_strength, int add) {
    real sum = 0;
    for (int64 i = first() * PACK; i < n; i += stride() * PACK) {
        const real strength = i < split ? real(1) : bias_strength;
        const Pack<PACK, real> x = pack<PACK>(theta + i);
        for (int j = 0; j < PACK; ++j) sum += strength * omega(x.at[j]);
        if (add) {
            Pack<PACK> d = pack<PACK>(dtheta + i);
            for (int j = 0; j < PACK; ++j)
                d.at[j] = T(real(d.at[j]) + strength * domega(x.at[j]));
            pack<PACK>(dtheta + i) = d;
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial[block] ← Σ (dθ / S + λ∇Ω(θ))², S being the loss scale: scaling[0]
GPUMLP_KERNEL(squared_norm, THREADS)
(const real* theta, const Grad* dtheta, const double* scaling, real* partial, int64 n, int64 split,
 real bias_strength) {
    const real unscale = real(1 / scaling[0]);
    real sum = 0;
    for (int64 i = first() * PACK; i < n; i += stride() * PACK) {
        const real strength = i < split ? real(1) : bias_strength;
        const Pack<PACK, real> x = pack<PACK>(theta + i);
        const Pack<PACK, Grad> d = pack<PACK>(dtheta + i);
        for (int j = 0; j < PACK; ++j) {
            const real g = unscale * real(d.at[j]) + strength * domega(x.at[j]);
            sum += g * g;
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// control[0] ← min(1, max_norm / √Σ partial), in one block; scaling[1] ← 1/S.
// If the norm is not finite, control[0] becomes NaN.  If the loss scale is dynamic (interval > 0),
// control[0] becomes 0 instead, which makes the update skip the step, and S is halved.  After
// `interval` steps without such a norm, S is doubled.
GPUMLP_KERNEL(clip, THREADS)
(const real* partial, double* scaling, double* control, int64 n, double max_norm, int64 interval) {
    double sum = 0;
    for (int64 i = threadIdx.x; i < n; i += THREADS) sum += double(partial[i]);
    const double norm = sqrt(block_sum(sum));
    if (threadIdx.x != 0) return;
    const bool finite = norm - norm == 0.0;
    control[0] = norm <= max_norm && finite ? 1.0 : max_norm / norm + 0.0 * norm;
    scaling[1] = 1 / scaling[0];
    if (interval == 0) return;
    if (!finite) {
        control[0] = 0;
        scaling[0] /= 2;
        scaling[2] = 0;
        scaling[3] += 1;
    } else if (++scaling[2] >= double(interval)) {
        scaling[0] *= 2;
        scaling[2] = 0;
    }
}
