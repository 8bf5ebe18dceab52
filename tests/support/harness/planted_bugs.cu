// Kernels with one planted bug each.  The harness must find every bug.
// The last kernel is correct: the harness must not report it.
typedef long long int64;

// off by one: no bound check at the end of the array
GPUMLP_KERNEL(write_past_end, 256)(float* x, int64 n) {
    const int64 i = blockIdx.x * (int64)blockDim.x + threadIdx.x;
    if (i <= n) x[i] = 1.0f;
}

// 16-byte access to a pointer that is only 4-byte aligned
struct alignas(16) Four { float at[4]; };
GPUMLP_KERNEL(misaligned, 256)(float* x) {
    if (threadIdx.x == 0) *(Four*)(x + 1) = Four{};
}

// barrier missing between the write and the read of shared memory
GPUMLP_KERNEL(missing_barrier, 256)(const float* x, float* y) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = s[63 - threadIdx.x];
}

// second use of a shared array without the barrier that protects the first
GPUMLP_KERNEL(missing_second_barrier, 256)(const float* x, float* y) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    const float a = s[63 - threadIdx.x];
    s[threadIdx.x] = 2.0f * a;
    __syncthreads();
    y[threadIdx.x] = a + s[threadIdx.x];
}

// two reductions share one array, without the barrier between them
GPUMLP_KERNEL(missing_barrier_between_reductions, 256)(const float* x, float* y) {
    __shared__ float part[2];
    float a = x[threadIdx.x], b = -x[threadIdx.x];
    for (int d = 16; d > 0; d /= 2) a = fmax(a, __shfl_xor_sync(0xffffffffu, a, d));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = a;
    __syncthreads();
    a = fmax(part[0], part[1]);
    for (int d = 16; d > 0; d /= 2) b = fmax(b, __shfl_xor_sync(0xffffffffu, b, d));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = b;
    __syncthreads();
    y[threadIdx.x] = a + fmax(part[0], part[1]);
}

// barrier that the two halves reach at different places
GPUMLP_KERNEL(divergent_barrier, 256)(float* y) {
    if (threadIdx.x < 32) __syncthreads();
    else { __syncthreads(); }
    y[threadIdx.x] = 1.0f;
}

// half of the threads wait at a barrier, the others for lanes that wait there
GPUMLP_KERNEL(deadlock, 256)(float* y) {
    if (threadIdx.x < 16) __syncthreads();
    else __syncwarp();
    y[threadIdx.x] = 1.0f;
}

// lanes of the mask have left
GPUMLP_KERNEL(shuffle_from_missing_lane, 256)(float* y) {
    float v = threadIdx.x;
    if (threadIdx.x < 16) v = __shfl_down_sync(0xffffffffu, v, 16);
    y[threadIdx.x] = v;
}

// mask that leaves the caller out
GPUMLP_KERNEL(shuffle_wrong_mask, 256)(float* y) {
    y[threadIdx.x] = __shfl_down_sync(0x0000ffffu, (float)threadIdx.x, 1);
}

// shared memory read before it is written
GPUMLP_KERNEL(uninitialised_shared, 256)(float* y) {
    __shared__ float total;
    atomicAdd(&total, 1.0f);
    __syncthreads();
    y[threadIdx.x] = total;
}

// plain += where an atomic is needed, between blocks
GPUMLP_KERNEL(race_between_blocks, 256)(const float* x, float* out) {
    if (threadIdx.x == 17) out[0] += x[blockIdx.x];
}

// atomics on floats: no race, but the sum depends on the order of the blocks
GPUMLP_KERNEL(order_of_atomics, 256)(const float* x, float* out) {
    if (threadIdx.x == 0) atomicAdd(out, x[blockIdx.x]);
}

// index past the end of a shared array
GPUMLP_KERNEL(shared_past_end, 256)(float* y) {
    __shared__ float s[32];
    s[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x / 2];
}

// dynamic shared memory smaller than what the kernel uses
GPUMLP_KERNEL(dynamic_past_end, 256)(float* y) {
    GPUMLP_DYNAMIC_SHARED(float, s);
    s[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

// rows * cols does not fit an int
GPUMLP_KERNEL(int_overflow, 256)(float* y, int rows, int cols) {
    const int n = rows * cols;
    if (threadIdx.x == 0) y[0] = n;
}

// loops for ever
GPUMLP_KERNEL(endless, 256)(float* y) {
    for (;;) {
        if (y[0] > 0.0f) break;
        __syncthreads();
    }
}

// no bug: y ← the sum of x over each block, by every operation that there is
GPUMLP_KERNEL(right, 64)(const float* x, float* y) {
    __shared__ float part[2];
    GPUMLP_DYNAMIC_SHARED(float, copy);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = x[i];
    copy[threadIdx.x] = sum;
    const float neighbour = __shfl_xor_sync(0xffffffffu, sum, 1);
    for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);
    __syncwarp();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    y[i] = part[0] + part[1] + (copy[threadIdx.x ^ 1] - neighbour);
}
