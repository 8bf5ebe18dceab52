// Sums of arrays.
#include "common.cuh"

// sum ← more + sum
__device__ inline void add_to(Pack<WIDE, real>& sum, const Pack<WIDE, real>& more) {
    for (int j = 0; j < WIDE; ++j) sum.at[j] = more.at[j] + sum.at[j];
}

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

// total ← Σ of the rows of parts, (rows, n), in pairs: ((p₀ + p₁) + (p₂ + p₃)) + …; n is a multiple
// of PACK, rows at most 2^LEVELS − 1.  sums[l] waits for the sum of the next 2^l rows.
GPUMLP_KERNEL(tree_sum, THREADS)
(const real* parts, real* total, int64 rows, int64 n) {
    enum { LEVELS = 10 };
    after_previous_launch();
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE) {
        Pack<WIDE, real> sums[LEVELS], sum = {};
        for (int row = 0; row < int(rows); ++row) {
            sum = pack<WIDE>(parts + row * n + i);
            bool waits = false;
#pragma unroll
            for (int l = 0; l < LEVELS; ++l) {
                const bool here = !waits && !(row >> l & 1);
                if (here) sums[l] = sum;
                waits = waits || here;
                if (!waits) add_to(sum, sums[l]);
            }
        }
        bool found = false;
#pragma unroll
        for (int l = 0; l < LEVELS; ++l) {
            if (!(rows >> l & 1)) continue;
            if (found) add_to(sum, sums[l]);
            else sum = sums[l];
            found = true;
        }
        pack<WIDE>(total + i) = sum;
    }
}
