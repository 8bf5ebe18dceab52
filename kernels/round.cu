// The copy of θ in the storage type, which the products read.
#include "common.cuh"

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
