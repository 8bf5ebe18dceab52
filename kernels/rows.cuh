// A row's statistics by one warp.
#pragma once

// the row's maximum, and Σ exp(x − maximum), in one pass: the sum is rescaled when the maximum grows
__device__ inline void max_and_sum(const T* x, int64 cols, real& top, real& sum) {
    real m = lowest(), s = 0;
    for (int64 c = threadIdx.x; c < cols; c += 32) {
        const real v = real(x[c]);
        if (v > m) {
            s = s * exp(m - v) + real(1);
            m = v;
        } else {
            s += exp(v - m);
        }
    }
    top = warp_max(m);
    sum = warp_sum(s * exp(m - top));
}
