// Softmax of each row, and the product with its Jacobian.
//
// Blocks are (32, THREADS / 32): a warp works on one row at a time.
#include "common.cuh"
#include "rows.cuh"

// z ← z + b, h ← softmax(z).  z may be h, and then only h is kept.
GPUMLP_KERNEL(forward, THREADS)
(T* z, const T* b, T* h, int64 rows, int64 cols) {
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        T* const x = z + row * cols;
        for (int64 c = threadIdx.x; c < cols; c += 32) x[c] = T(real(x[c]) + real(b[c]));
        real top, sum;
        max_and_sum(x, cols, top, sum);
        const real scale = real(1) / sum;
        for (int64 c = threadIdx.x; c < cols; c += 32)
            h[row * cols + c] = T(exp(real(x[c]) - top) * scale);
    }
}

// gz ← Jᵀ gh = h ⊙ (gh − Σ h gh).  gz may be gh.
GPUMLP_KERNEL(vjp, THREADS)
(const T* gh, const T* h, T* gz, int64 rows, int64 cols) {
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const int64 start = row * cols;
        real mean = 0;
        for (int64 c = threadIdx.x; c < cols; c += 32)
            mean += real(h[start + c]) * real(gh[start + c]);
        mean = warp_sum(mean);
        for (int64 c = threadIdx.x; c < cols; c += 32)
            gz[start + c] = T(real(h[start + c]) * (real(gh[start + c]) - mean));
    }
}
