// Sums of arrays.
#include "common.cuh"
#include "sums.cuh"

// sum ← more + sum
__device__ inline void add_to(Pack<WIDE, real>& sum, const Pack<WIDE, real>& more) {
    for (int j = 0; j < WIDE; ++j) sum.at[j] = more.at[j] + sum.at[j];
}
__device__ inline void add_to(Moments& sum, Moments more) {
    more += sum;
    sum = more;
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

// Σ of part(row) over the rows, in pairs: ((p₀ + p₁) + (p₂ + p₃)) + …; rows is at most 2^LEVELS − 1.
// sums[l] waits for the sum of the next 2^l rows.
template <class V, class Part> __device__ V in_pairs(int64 rows, const Part& part) {
    enum { LEVELS = 10 };
    V sums[LEVELS], sum = {};
    for (int row = 0; row < int(rows); ++row) {
        sum = part(row);
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
    return sum;
}

// total ← Σ of the rows of parts, (rows, n), in pairs; n is a multiple of PACK
GPUMLP_KERNEL(tree_sum, THREADS)
(const real* parts, real* total, int64 rows, int64 n) {
    after_previous_launch();
    for (int64 i = first() * WIDE; i < n; i += stride() * WIDE)
        pack<WIDE>(total + i) = in_pairs<Pack<WIDE, real>>(
            rows, [&](int64 row) { return pack<WIDE>(parts + row * n + i); });
}

// total (3, cols) ← the means, variances and counts of parts (rows, 3, cols), joined in pairs
GPUMLP_KERNEL(tree_moments, THREADS)
(const real* parts, real* total, int64 rows, int64 cols) {
    after_previous_launch();
    for (int64 c = first(); c < cols; c += stride()) {
        const Moments all = in_pairs<Moments>(rows, [&](int64 row) {
            const real* const part = parts + 3 * row * cols + c;
            return Moments{part[0], part[cols], part[2 * cols]};
        });
        total[c] = all.mean, total[cols + c] = all.variance, total[2 * cols + c] = all.count;
    }
}
