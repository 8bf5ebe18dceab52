// The Newton-Schulz iteration towards an orthogonal matrix, except for its matrix products, whose
// operands have the storage type.
#include "common.cuh"

// partial[block] ← Σ v² of n numbers
GPUMLP_KERNEL(squares, THREADS)
(const real* v, real* partial, int64 n) {
    after_previous_launch();
    real sum = 0;
    for (int64 i = first(); i < n; i += stride()) sum += v[i] * v[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// x ← v / max(‖v‖, least), where ‖v‖² is the sum of the blocks' partial sums.  A norm that is not
// finite gives NaN, so that the step cannot look like a healthy one.
GPUMLP_KERNEL(normalize, THREADS)
(const real* v, const real* partial, T* x, int64 n, int64 blocks, double least) {
    after_previous_launch();
    double sum = 0;
    for (int64 i = threadIdx.x; i < blocks; i += THREADS) sum += double(partial[i]);
    const double norm = sqrt(block_sum(sum));
    const real inverse = real(norm - norm == 0.0 ? 1 / (norm > least ? norm : least) : norm - norm);
    for (int64 i = first(); i < n; i += stride()) x[i] = T(inverse * v[i]);
}

// A ← scale (a I + b A + c P), each (r, r)
GPUMLP_KERNEL(quintic, THREADS)
(T* A, const T* P, int64 r, real scale, real a, real b, real c) {
    after_previous_launch();
    for (int64 i = first(); i < r * r; i += stride())
        A[i] = T(scale * (b * real(A[i]) + c * real(P[i]) + (i % (r + 1) == 0 ? a : real(0))));
}
