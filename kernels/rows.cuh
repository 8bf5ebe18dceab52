// Statistics of a row, computed by one warp.  A lane takes N neighbouring entries at a time.
#pragma once

// the maximum of the row and Σ exp(x − maximum) in one pass: a larger maximum rescales the sum
template <int N>
__device__ void max_and_sum(const T* x, int64 cols, real& top, real& sum) {
    real m = lowest(), s = 0;
    for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
        const Pack<N> v = pack<N>(x + c);
        real up = m;
        for (int j = 0; j < N; ++j) up = fmax(up, real(v.at[j]));
        if (up > m) s *= exp(m - up);
        m = up;
        for (int j = 0; j < N; ++j) s += exp(real(v.at[j]) - m);
    }
    top = warp_max(m);
    sum = warp_sum(s * exp(m - top));
}
