// The Newton-Schulz iteration towards an orthogonal matrix, except for its matrix products, whose
// operands have the storage type.  Row y of the grid has matrix y of the K of a launch.
#include "common.cuh"

// partial[matrix][block] ← Σ v² of the n numbers of a matrix; between two matrices v has `apart`
GPUMLP_KERNEL(squares, THREADS)
(const real* v, real* partial, int64 n, int64 apart) {
    after_previous_launch();
    v += blockIdx.y * apart;
    partial += blockIdx.y * (int64)gridDim.x;
    real sum = 0;
    for (int64 i = first(); i < n; i += stride()) sum += v[i] * v[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// x ← v / max(‖v‖, least), where ‖v‖² is the sum of the partial sums of as many blocks.  A norm that
// is not finite gives NaN, so that the step cannot look like a healthy one.
GPUMLP_KERNEL(normalize, THREADS)
(const real* v, const real* partial, T* x, int64 n, int64 apart, double least) {
    after_previous_launch();
    v += blockIdx.y * apart;
    x += blockIdx.y * n;
    partial += blockIdx.y * (int64)gridDim.x;
    double sum = 0;
    for (int64 i = threadIdx.x; i < gridDim.x; i += THREADS) sum += double(partial[i]);
    const double norm = sqrt(block_sum(sum));
    const real inverse = real(norm - norm == 0.0 ? 1 / (norm > least ? norm : least) : norm - norm);
    for (int64 i = first(); i < n; i += stride()) x[i] = T(inverse * v[i]);
}

// A ← scale (a I + b A + c P) for each of the matrices (r, r)
GPUMLP_KERNEL(quintic, THREADS)
(T* A, const T* P, int64 r, real scale, real a, real b, real c) {
    after_previous_launch();
    A += blockIdx.y * r * r;
    P += blockIdx.y * r * r;
    for (int64 i = first(); i < r * r; i += stride())
        A[i] = T(scale * (b * real(A[i]) + c * real(P[i]) + (i % (r + 1) == 0 ? a : real(0))));
}
