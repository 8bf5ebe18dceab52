// Gather a minibatch by index: rows of x and y, and the weights of the examples in the mean.
#include "common.cuh"
#include "gather.cuh"

// out[row] ← source[index[row]]
GPUMLP_KERNEL(gather, THREADS)
(const T* source, const int64* index, T* out, int64 rows, int64 cols, int packed) {
    after_previous_launch();
    const int64 row = first_row(), stride = row_stride();
    if (packed) gather_rows<PACK>(source, index, out, rows, cols, first() * PACK, row, stride);
    else gather_rows<1>(source, index, out, rows, cols, first(), row, stride);
}

// out[i] ← weights[index[i]] / Σ weights[index], or 0 if the sum is 0; in one block for each network
GPUMLP_KERNEL(mean_weights, THREADS)
(const real* weights, const int64* index, real* out, int64 n) {
    after_previous_launch();
    shares(weights, index + member() * n, out + member() * n, n);
}
