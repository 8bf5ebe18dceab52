// Gather a minibatch by index: rows of x and y, and the weights of the examples in the mean.
#include "common.cuh"

template <int N>
__device__ void gather_tile(const T* source, const int64* index, T* out, int64 rows, int64 cols) {
    const int64 col = first() * N;
    if (col >= cols) return;
    for (int64 row = first_row(); row < rows; row += row_stride())
        pack<N>(out + row * cols + col) = pack<N>(source + index[row] * cols + col);
}

// out[row] ← source[index[row]]
GPUMLP_KERNEL(gather, THREADS)
(const T* source, const int64* index, T* out, int64 rows, int64 cols, int packed) {
    if (packed) gather_tile<PACK>(source, index, out, rows, cols);
    else gather_tile<1>(source, index, out, rows, cols);
}

// out[i] ← weights[index[i]] / Σ weights[index], or 0 if the sum is 0; in one block
GPUMLP_KERNEL(mean_weights, THREADS)
(const real* weights, const int64* index, real* out, int64 n) {
    real sum = 0;
    for (int64 i = threadIdx.x; i < n; i += THREADS) sum += weights[index[i]];
    sum = block_sum(sum);
    for (int64 i = threadIdx.x; i < n; i += THREADS)
        out[i] = sum > real(0) ? weights[index[i]] / sum : real(0);
}
