// λΩ(θ), its gradient, and the norm of the whole gradient, over the flat θ.
//
// The entry supplies  real omega(real theta)  and  real domega(real theta).  Weights come first.
// Biases start at `split`; there, λ is multiplied by bias_strength.  n is a multiple of PACK.
// The loader puts above this:  typedef … Grad;  the type of dθ in squared_norm: T, or real
#include "common.cuh"
#include "theta.cuh"
#include "sums.cuh"
#include "cost.cuh"

// J ← J + λΩ(θ) and, if add is set, dθ ← dθ + λ∇Ω(θ).  partial, arrived: see sums.cuh
GPUMLP_KERNEL(penalty, THREADS)
(const real* theta, T* dtheta, real* partial, unsigned* arrived, double* J, int64 n, int64 split,
 real bias_strength, int add) {
    after_previous_launch();
    real sum = 0;
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE) {
        const real strength = i < split ? real(1) : bias_strength;
        const Pack<WIDE, real> x = pack<WIDE>(theta + i);
        for (int j = 0; j < WIDE; ++j) sum += strength * omega(x.at[j]);
        if (add) {
            Pack<WIDE> d = pack<WIDE>(dtheta + i);
            for (int j = 0; j < WIDE; ++j)
                d.at[j] = T(real(d.at[j]) + strength * domega(x.at[j]));
            pack<WIDE>(dtheta + i) = d;
        }
    }
    add_to_cost(sum, partial, arrived, J);
}

// The thread's part of ‖dθ / S + λ∇Ω(θ)‖².  theta and rounded: see theta.cuh; rounded is not read
// unless θ is split.
__device__ inline real squares(const Theta* theta, const Theta* rounded, const Grad* dtheta,
                               real unscale, int64 n, int64 split, real bias_strength) {
    real part = 0;
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE) {
        const real strength = i < split ? real(1) : bias_strength;
        const Pack<WIDE, real> x = theta_at(theta, rounded, i);
        const Pack<WIDE, Grad> d = pack<WIDE>(dtheta + i);
        for (int j = 0; j < WIDE; ++j) {
            const real g = unscale * real(d.at[j]) + strength * domega(x.at[j]);
            part += g * g;
        }
    }
    return part;
}

// control[0] ← min(1, max_norm / norm); scaling[1] ← 1/S.
// If the norm is not finite, control[0] becomes NaN.  If the loss scale is dynamic (interval > 0),
// control[0] becomes 0 instead, which makes the update skip the step, and S is halved.  After
// `interval` steps without such a norm, S is doubled.
__device__ inline void limit(double norm, double max_norm, double* scaling, double* control,
                             int64 interval) {
    if (control[0] == 0) return;  // a network that rests
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

// `limit` by ‖dθ / S + λ∇Ω(θ)‖, S being the loss scale: scaling[0].  control has `numbers` entries.  Of
// several networks: see member().
GPUMLP_KERNEL(clip, THREADS)
(const Theta* theta, const Theta* rounded, const Grad* dtheta, double* scaling, double* control,
 real* partial, unsigned* arrived, int64 n, int64 split, real bias_strength, double max_norm,
 int64 interval, int64 numbers) {
    after_previous_launch();
    theta += member() * n, rounded += member() * n, dtheta += member() * n;
    scaling += 4 * member(), control += member() * numbers;
    partial += member() * gridDim.x, arrived += member();
    const real part =
        squares(theta, rounded, dtheta, real(1 / scaling[0]), n, split, bias_strength);
    double sum;
    if (!grid_sum(part, partial, arrived, sum) || thread() != 0) return;
    limit(sqrt(sum), max_norm, scaling, control, interval);
}

// total[0] ← ‖dθ / S + λ∇Ω(θ)‖², of a piece of θ
GPUMLP_KERNEL(square_sum, THREADS)
(const Theta* theta, const Theta* rounded, const Grad* dtheta, const double* scaling, double* total,
 real* partial, unsigned* arrived, int64 n, int64 split, real bias_strength) {
    after_previous_launch();
    const real part =
        squares(theta, rounded, dtheta, real(1 / scaling[0]), n, split, bias_strength);
    double sum;
    if (grid_sum(part, partial, arrived, sum) && thread() == 0) total[0] = sum;
}

// `limit` by the root of the sum of parts, (pieces,), in order; by one thread
GPUMLP_KERNEL(clip_by, THREADS)
(const double* parts, double* scaling, double* control, int64 pieces, double max_norm,
 int64 interval) {
    after_previous_launch();
    if (first() >= 1) return;
    double sum = 0;
    for (int64 i = 0; i < pieces; ++i) sum += parts[i];
    limit(sqrt(sum), max_norm, scaling, control, interval);
}
