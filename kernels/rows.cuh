// Statistics of a row, computed by the threads that share it.
#pragma once

// the maximum of the row and Σ exp(x − maximum) in one pass, by a warp: a larger maximum rescales the
// sum.  A lane takes N neighbouring entries at a time.
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

// each x ← its sum over each group of `lanes` neighbouring threads, in a fixed order; every thread
// of the block takes part
template <int COUNT> __device__ void group_sums(real* x, int lanes) {
    __shared__ real part[COUNT * THREADS / 32];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) x[i] = warp_sum(x[i], lanes < 32 ? lanes : 32);
    if (lanes <= 32) return;
    const int warps = lanes / 32, own = thread() / 32, first = own / warps * warps;
    __syncthreads();  // all threads have read the parts of an earlier call
    if (thread() % 32 == 0)
        for (int i = 0; i < COUNT; ++i) part[i * THREADS / 32 + own] = x[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        x[i] = part[i * THREADS / 32 + first];
        for (int warp = 1; warp < warps; ++warp) x[i] += part[i * THREADS / 32 + first + warp];
    }
}
