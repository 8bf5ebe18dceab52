// Functions of a whole row: softmax, its Jacobian product, and cross-entropy on logits.
//
// Blocks are (32, THREADS / 32): a warp works on one row at a time.  For the cross-entropy the
// entry supplies the constant  smoothing,  and the loader the type Y of y: see target.cuh.
#include "common.cuh"
#include "target.cuh"

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

template <bool WITH_GRADIENT>
__device__ void cross_entropy(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial,
                              int64 rows, int64 cols) {
    real all = 0;  // lanes hold equal values: each row's loss counts in lane 0 alone
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const T* const x = y_hat + row * cols;
        const real share = real(weights[row]), floor = smoothing / real(cols);
        real top, sum, loss = 0, mass = 0;
        max_and_sum(x, cols, top, sum);
        const real log_sum = log(sum) + top;
        for (int64 c = threadIdx.x; c < cols; c += 32) {
            const real t = target(y, row, c, cols) * (real(1) - smoothing) + floor;
            loss += t * (log_sum - real(x[c]));
            mass += t;
        }
        loss = warp_sum(loss);
        mass = warp_sum(mass);
        if (threadIdx.x == 0) all += share * loss;
        if (WITH_GRADIENT) {
            const real scale = mass / sum;
            for (int64 c = threadIdx.x; c < cols; c += 32) {
                const real t = target(y, row, c, cols) * (real(1) - smoothing) + floor;
                gh[row * cols + c] = T(share * (exp(real(x[c]) - top) * scale - t));
            }
        }
    }
    all = block_sum(all);
    if (threadIdx.x == 0 && threadIdx.y == 0) partial[blockIdx.y] = all;
}

// partial[block] ← Σ weights · cross-entropy of softmax(ŷ) and the smoothed y, over its rows
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const T* weights, real* partial, int64 rows, int64 cols) {
    cross_entropy<false>(y_hat, y, weights, (T*)0, partial, rows, cols);
}

// the same, and gh ← ∇_ŷ
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const T* weights, T* gh, real* partial, int64 rows, int64 cols) {
    cross_entropy<true>(y_hat, y, weights, gh, partial, rows, cols);
}
