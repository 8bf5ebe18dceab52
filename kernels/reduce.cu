// Sums in two passes: blocks write partial sums, and a second launch adds them in a fixed order.
#include "common.cuh"

// out[c] ← Σ over splits of partial[split, c]
GPUMLP_KERNEL(column_total, THREADS)
(const real* partial, T* out, int64 splits, int64 cols) {
    for (int64 c = first(); c < cols; c += stride()) {
        real sum = 0;
        for (int64 split = 0; split < splits; ++split) sum += partial[split * cols + c];
        out[c] = T(sum);
    }
}

// total ← total + part, or total ← part if overwrite is set; n is a multiple of PACK
GPUMLP_KERNEL(add, THREADS)
(const T* part, real* total, int64 n, int overwrite) {
    for (int64 i = first() * PACK; i < n; i += stride() * PACK) {
        const Pack<PACK> a = pack<PACK>(part + i);
        Pack<PACK, real> sum = {};
        if (!overwrite) sum = pack<PACK>(total + i);
        for (int j = 0; j < PACK; ++j) sum.at[j] += real(a.at[j]);
        pack<PACK>(total + i) = sum;
    }
}

// out[0] ← out[0] + Σ partial, in one block
GPUMLP_KERNEL(total, THREADS)
(const real* partial, double* out, int64 n) {
    double sum = 0;
    for (int64 i = threadIdx.x; i < n; i += THREADS) sum += double(partial[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[0] += sum;
}
