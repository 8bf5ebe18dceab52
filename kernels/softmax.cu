// Softmax of each row, and the product with its Jacobian (vjp).
//
// Blocks are (32, THREADS / 32): a warp works on one row at a time.
#include "common.cuh"
#include "rows.cuh"

template <int N>
__device__ void forward_rows(T* z, const T* b, T* h, int64 rows, int64 cols) {
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        T* const x = z + row * cols;
        for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
            const Pack<N> bias = pack<N>(b + c);
            Pack<N> a = pack<N>(x + c);
            for (int j = 0; j < N; ++j) a.at[j] = T(real(a.at[j]) + real(bias.at[j]));
            pack<N>(x + c) = a;
        }
        real top, sum;
        max_and_sum<N>(x, cols, top, sum);
        const real scale = real(1) / sum;
        for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
            Pack<N> a = pack<N>(x + c);
            for (int j = 0; j < N; ++j) a.at[j] = T(exp(real(a.at[j]) - top) * scale);
            pack<N>(h + row * cols + c) = a;
        }
    }
}

// z ← z + b, h ← softmax(z).  z may be h, and then only h is kept.  Of several networks: see member().
GPUMLP_KERNEL(forward, THREADS)
(T* z, const T* b, T* h, int64 rows, int64 cols, int64 apart, int packed) {
    after_previous_launch();
    z += member() * rows * cols, h += member() * rows * cols, b += member() * apart;
    if (packed) forward_rows<PACK>(z, b, h, rows, cols);
    else forward_rows<1>(z, b, h, rows, cols);
}

template <int N>
__device__ void vjp_rows(const T* gh, const T* h, T* gz, int64 rows, int64 cols) {
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const int64 start = row * cols;
        real mean = 0;
        for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
            const Pack<N> p = pack<N>(h + start + c), g = pack<N>(gh + start + c);
            for (int j = 0; j < N; ++j) mean += real(p.at[j]) * real(g.at[j]);
        }
        mean = warp_sum(mean);
        for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
            const Pack<N> p = pack<N>(h + start + c);
            Pack<N> g = pack<N>(gh + start + c);
            for (int j = 0; j < N; ++j) g.at[j] = T(real(p.at[j]) * (real(g.at[j]) - mean));
            pack<N>(gz + start + c) = g;
        }
    }
}

// gz ← Jᵀ gh = h ⊙ (gh − Σ h gh).  gz may be gh.
GPUMLP_KERNEL(vjp, THREADS)
(const T* gh, const T* h, T* gz, int64 rows, int64 cols, int packed) {
    after_previous_launch();
    if (packed) vjp_rows<PACK>(gh, h, gz, rows, cols);
    else vjp_rows<1>(gh, h, gz, rows, cols);
}
