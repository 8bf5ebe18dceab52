// θ̄, the moving average of θ.
#include "common.cuh"
#include "theta.cuh"

// mean ← d mean + (1 − d) θ for d = min(decay, (t − 1) / (t + 8)), t = control[last].  n is a
// multiple of PACK.  control[0] is 0 if the update has skipped this step.  theta and rounded: see
// theta.cuh; rounded is not read unless θ is split.  Of several networks: see member().
GPUMLP_KERNEL(average, THREADS)
(const Theta* theta, const Theta* rounded, real* mean, const double* control, int64 n, int64 last,
 double decay) {
    after_previous_launch();
    theta += member() * n, rounded += member() * n, mean += member() * n;
    control += member() * (last + 1);
    if (control[0] == 0) return;
    const double t = control[last], slow = (t - 1) / (t + 8);
    const double d = decay < slow ? decay : slow;
    const real stay = real(d), move = real(1 - d);  // in float32, 1 − d would lose its digits
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE) {
        const Pack<WIDE, real> x = theta_at(theta, rounded, i);
        Pack<WIDE, real> m = pack<WIDE>(mean + i);
        for (int j = 0; j < WIDE; ++j) {  // start from the nearer end, so that d = 0 gives θ itself
            const real difference = x.at[j] - m.at[j];
            m.at[j] = d > 0.5 ? m.at[j] + move * difference : x.at[j] - stay * difference;
        }
        pack<WIDE>(mean + i) = m;
    }
}
