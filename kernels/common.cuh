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
#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT (sizeof(real) == 8 ? 2 : 4)
#ifndef GPUMLP_KERNEL
#define GPUMLP_KERNEL(name, threads) \
    extern "C" __global__ void __launch_bounds__(threads, GPUMLP_RESIDENT) name
#endif

// GPUMLP_PTX(statement, (assembly)): the assembly on a GPU; the tests, on a CPU, run the statement
#ifndef GPUMLP_PTX
#define GPUMLP_PTX(statement, assembly) asm assembly
#endif

// A recorded step may start a launch before the one before it has ended (see early.py): each kernel
// first waits for that end, and lets the next launch start.  Until it returns, a kernel accesses no
// memory.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ inline void after_previous_launch() {
    GPUMLP_PTX(, volatile("griddepcontrol.wait;" ::: "memory"));
    GPUMLP_PTX(, volatile("griddepcontrol.launch_dependents;" ::: "memory"));
}
#else
__device__ inline void after_previous_launch() {}
#endif

// entries of one 16-byte access: of the storage type, which a thread makes if the width and address
// of the row allow it, and of θ's type
enum { PACK = 16 / sizeof(T), WIDE = 16 / sizeof(real), THREADS = 256 };
enum : unsigned { ALL_LANES = 0xffffffffu };

template <int N, class S = T>
struct alignas(N * sizeof(S) < 16 ? N * sizeof(S) : 16) Pack { S at[N]; };
template <int N, class S> __device__ Pack<N, S>& pack(S* p) { return *(Pack<N, S>*)p; }
template <int N, class S> __device__ const Pack<N, S>& pack(const S* p) {
    return *(const Pack<N, S>*)p;
}

// The network of an ensemble that the block works for: a launch for K networks has K layers of blocks.
// Arrays of several networks are (K, …).  Those of minibatches lie one after another, and views of θ
// are `apart` entries from one network to the next.
__device__ inline int64 member() { return blockIdx.z; }

// the thread in its block
__device__ inline int thread() { return threadIdx.y * blockDim.x + threadIdx.x; }

// the thread's first element of a flat array, and the stride to its next
__device__ inline int64 first() { return blockIdx.x * (int64)blockDim.x + threadIdx.x; }
__device__ inline int64 stride() { return gridDim.x * (int64)blockDim.x; }

// the first and the next of a thread's rows in a tile of (columns, rows) = (x, y)
__device__ inline int64 first_row() { return blockIdx.y * (int64)blockDim.y + threadIdx.y; }
__device__ inline int64 row_stride() { return gridDim.y * (int64)blockDim.y; }

// tanh and σ for activations.  In bfloat16, whose rounding error is 2⁻⁹, one instruction computes
// tanh with an error of 2⁻¹¹.
template <class S> __device__ real tanh_for(const S*, real x) { return tanh(x); }
template <class S> __device__ real sigmoid_for(const S*, real x) {
    return real(1) / (real(1) + exp(-x));  // exp(−x) = inf gives 0, as it should
}
#ifdef __CUDA_BF16_H__
__device__ inline real tanh_for(const __nv_bfloat16*, real x) {
    float y;
    GPUMLP_PTX(y = tanh(float(x)), ("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(float(x))));
    return y;
}
__device__ inline real sigmoid_for(const __nv_bfloat16* type, real x) {
    return real(0.5) + real(0.5) * tanh_for(type, real(0.5) * x);
}
#endif
__device__ inline real fast_tanh(real x) { return tanh_for((const T*)0, x); }
__device__ inline real fast_sigmoid(real x) { return sigmoid_for((const T*)0, x); }

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

// sum over a warp, or over each group of `lanes` neighbouring lanes, always in the same order; every
// lane gets the result
template <class R> __device__ R warp_sum(R x, int lanes = 32) {
    for (int other = lanes / 2; other > 0; other /= 2) x += __shfl_xor_sync(ALL_LANES, x, other);
    return x;
}
template <class R> __device__ R warp_max(R x, int lanes = 32) {
    for (int other = lanes / 2; other > 0; other /= 2)
        x = fmax(x, __shfl_xor_sync(ALL_LANES, x, other));
    return x;
}

// sum over a block of THREADS threads, in a fixed order; every thread gets the result
template <class R> __device__ R block_sum(R x) {
    __shared__ R part[THREADS / 32];
    x = warp_sum(x);
    __syncthreads();  // all threads have read the part of an earlier call
    if (thread() % 32 == 0) part[thread() / 32] = x;
    __syncthreads();
    x = part[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) x += part[warp];
    return x;
}
