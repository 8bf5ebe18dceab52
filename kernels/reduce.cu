// Sums of arrays.
#include "common.cuh"

// total ← total + part, or total ← part if overwrite is set; n is a multiple of PACK
GPUMLP_KERNEL(add, THREADS)
(const T* part, real* total, int64 n, int overwrite) {
    after_previous_launch();
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE) {
        const Pack<WIDE> a = pack<WIDE>(part + i);
        Pack<WIDE, real> sum = {};
        if (!overwrite) sum = pack<WIDE>(total + i);
        for (int j = 0; j < WIDE; ++j) sum.at[j] += real(a.at[j]);
        pack<WIDE>(total + i) = sum;
    }
}
