// One step of an optimizer over the flat θ, Ω's gradient folded in: one pass over memory.
//
// The entries supply  void rule(real& theta, real* slot, real g, const double* control),  SLOTS,
// and  real domega(real theta).  Weights come first, biases from `split` on, where λ is multiplied
// by bias_strength.  slots is (SLOTS, n); n and split are multiples of PACK.
#include "common.cuh"

// g = control[0] (dθ + λ∇Ω(θ)), then the rule on each θ and its slots, with control[1], …
GPUMLP_KERNEL(update, THREADS)
(T* theta, const T* dtheta, T* slots, const double* control, int64 n, int64 split,
 real bias_strength) {
    const real scale = real(control[0]);
    for (int64 i = first() * PACK; i < n; i += stride() * PACK) {
        const real strength = i < split ? real(1) : bias_strength;
        Pack<PACK> x = pack<PACK>(theta + i), state[SLOTS + 1];
        const Pack<PACK> d = pack<PACK>(dtheta + i);
        for (int s = 0; s < SLOTS; ++s) state[s] = pack<PACK>(slots + s * n + i);
        for (int j = 0; j < PACK; ++j) {
            real value = real(x.at[j]), slot[SLOTS + 1];
            for (int s = 0; s < SLOTS; ++s) slot[s] = real(state[s].at[j]);
            rule(value, slot, scale * (real(d.at[j]) + strength * domega(value)), control + 1);
            x.at[j] = T(value);
            for (int s = 0; s < SLOTS; ++s) state[s].at[j] = T(slot[s]);
        }
        pack<PACK>(theta + i) = x;
        for (int s = 0; s < SLOTS; ++s) pack<PACK>(slots + s * n + i) = state[s];
    }
}
