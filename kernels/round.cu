// The copy of θ in the storage type, which the products read.
#include "common.cuh"

// rounded ← θ; n is a multiple of PACK
GPUMLP_KERNEL(round_theta, THREADS)
(const real* theta, T* rounded, int64 n) {
    for (int64 i = first() * PACK; i < n; i += stride() * PACK) {
        const Pack<PACK, real> x = pack<PACK>(theta + i);
        Pack<PACK> copy;
        for (int j = 0; j < PACK; ++j) copy.at[j] = T(x.at[j]);
        pack<PACK>(rounded + i) = copy;
    }
}
