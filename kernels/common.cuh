// Common definitions of all kernels.  Plain CUDA C++ for NVRTC: no host code, no toolkit headers.
//
// The loader puts above this:  typedef … T;     the storage type: float, double, half or bfloat16
//                              typedef … real;  the type of arithmetic and of θ: double for
//                                               double, else float
// and puts below it the device functions of the entry that the kernel is compiled for.

#pragma once

typedef long long int64;

// Without a number of blocks, the compiler plans for more blocks on a multiprocessor than its
// registers allow, and spills.  4 blocks leave 64 registers for a thread, 2 blocks leave 128.
#ifndef GPUMLP_KERNEL
#define GPUMLP_KERNEL(name, threads) \
    extern "C" __global__ void __launch_bounds__(threads, sizeof(real) == 8 ? 2 : 4) name
#endif

// entries of one 16-byte access, which a thread makes if the width and address of the row allow it
enum { PACK = 16 / sizeof(T), THREADS = 256 };
enum : unsigned { ALL_LANES = 0xffffffffu };

template <int N, class S = T>
struct alignas(N * sizeof(S) < 16 ? N * sizeof(S) : 16) Pack { S at[N]; };
template <int N, class S> __device__ Pack<N, S>& pack(S* p) { return *(Pack<N, S>*)p; }
template <int N, class S> __device__ const Pack<N, S>& pack(const S* p) {
    return *(const Pack<N, S>*)p;
}

// the thread's first element of a flat array, and the stride to its next
__device__ inline int64 first() { return blockIdx.x * (int64)blockDim.x + threadIdx.x; }
__device__ inline int64 stride() { return gridDim.x * (int64)blockDim.x; }

// the first and the next of a thread's rows in a tile of (columns, rows) = (x, y)
__device__ inline int64 first_row() { return blockIdx.y * (int64)blockDim.y + threadIdx.y; }
__device__ inline int64 row_stride() { return gridDim.y * (int64)blockDim.y; }

// −1, 0 or 1; NaN stays NaN
__device__ inline real sign(real x) { return x > real(0) ? real(1) : x < real(0) ? real(-1) : x; }

// a b, and 0 if a is 0, whatever b is: a target or weight of 0 excludes an output or example
__device__ inline real times(real a, real b) { return a == real(0) ? real(0) : a * b; }

// the smallest normal number: keeps a logarithm finite
__device__ inline real tiny() {
    return sizeof(real) == 8 ? real(2.2250738585072014e-308) : real(1.17549435e-38f);
}

// the most negative finite number
__device__ inline real lowest() {
    return sizeof(real) == 8 ? real(-1.7976931348623157e308) : real(-3.40282347e38f);
}

// sum over a warp, always in the same order; every lane gets the result
template <class R> __device__ R warp_sum(R x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}
template <class R> __device__ R warp_max(R x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmax(x, __shfl_xor_sync(ALL_LANES, x, lanes));
    return x;
}

// sum over a block of THREADS threads, in a fixed order; every thread gets the result
template <class R> __device__ R block_sum(R x) {
    __shared__ R part[THREADS / 32];
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    x = warp_sum(x);
    __syncthreads();  // all threads have read the part of an earlier call
    if (thread % 32 == 0) part[thread / 32] = x;
    __syncthreads();
    x = part[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) x += part[warp];
    return x;
}
