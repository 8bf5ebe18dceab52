// The copy of θ in the storage type, which the products read; θ split into 16 bits and 16 bits.
#include "common.cuh"
#include "theta.cuh"

// rounded ← θ; n is a multiple of PACK
GPUMLP_KERNEL(round_theta, THREADS)
(const real* theta, T* rounded, int64 n) {
    after_previous_launch();
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE) {
        const Pack<WIDE, real> x = pack<WIDE>(theta + i);
        Pack<WIDE> copy;
        for (int j = 0; j < WIDE; ++j) copy.at[j] = T(x.at[j]);
        pack<WIDE>(rounded + i) = copy;
    }
}

// rounded, remainder ← θ, split as in theta.cuh
GPUMLP_KERNEL(split_theta, THREADS)
(const real* theta, T* rounded, short* remainder, int64 n) {
    after_previous_launch();
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE)
        keep_theta(pack<WIDE>(theta + i), remainder, rounded, i);
}

// θ ← all its bits
GPUMLP_KERNEL(restore_theta, THREADS)
(real* theta, const T* rounded, const short* remainder, int64 n) {
    after_previous_launch();
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE)
        pack<WIDE>(theta + i) = theta_at(remainder, rounded, i);
}
