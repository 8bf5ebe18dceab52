// Forward pass: h = f(z + b).  Backward pass: gz = gh ⊙ f'(z) and its column sums, and h = f(z)
// again if h was not kept.
//
// The entry supplies  real f(real z)  and  real df(real z, real h).  Matrices are (rows, cols),
// row-major.  A block covers a tile of columns and walks down its share of the rows.  Each thread
// stays in its own columns, so that its bias, or its share of the column sums, stays in registers.
#include "common.cuh"

template <int N>
__device__ void bias_activation_tile(T* z, const T* b, T* h, int64 rows, int64 cols) {
    const int64 col = first() * N;
    if (col >= cols) return;
    const Pack<N> bias = pack<N>(b + col);
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const int64 i = row * cols + col;
        Pack<N> a = pack<N>(z + i), out;
        for (int j = 0; j < N; ++j) {
            const real sum = real(a.at[j]) + real(bias.at[j]);
            a.at[j] = T(sum);
            out.at[j] = T(f(real(a.at[j])));
        }
        if (z != h) pack<N>(z + i) = a;
        pack<N>(h + i) = out;
    }
}

// z ← z + b, h ← f(z).  z may be h, and then only h is kept.
GPUMLP_KERNEL(bias_activation, THREADS)
(T* z, const T* b, T* h, int64 rows, int64 cols, int packed) {
    if (packed) bias_activation_tile<PACK>(z, b, h, rows, cols);
    else bias_activation_tile<1>(z, b, h, rows, cols);
}

template <int N>
__device__ void activation_tile(const T* z, T* h, int64 rows, int64 cols) {
    const int64 col = first() * N;
    if (col >= cols) return;
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const int64 i = row * cols + col;
        const Pack<N> a = pack<N>(z + i);
        Pack<N> out;
        for (int j = 0; j < N; ++j) out.at[j] = T(f(real(a.at[j])));
        pack<N>(h + i) = out;
    }
}

// h ← f(z), from the z that bias_activation has written.
GPUMLP_KERNEL(activation, THREADS)
(const T* z, T* h, int64 rows, int64 cols, int packed) {
    if (packed) activation_tile<PACK>(z, h, rows, cols);
    else activation_tile<1>(z, h, rows, cols);
}

template <int N>
__device__ void gradient_tile(const T* gh, const T* z, const T* h, T* gz, real* partial,
                              int64 rows, int64 cols) {
    __shared__ real sums[THREADS * N];
    const int64 col = first() * N;
    const int width = blockDim.x * N;
    real* const mine = sums + threadIdx.y * width + threadIdx.x * N;
    real sum[N] = {};
    if (col < cols)
        for (int64 row = first_row(); row < rows; row += row_stride()) {
            const int64 i = row * cols + col;
            const Pack<N> g = pack<N>(gh + i), a = pack<N>(z + i),
                          out = pack<N>(h + i);
            Pack<N> result;
            for (int j = 0; j < N; ++j) {
                result.at[j] = T(real(g.at[j]) * df(real(a.at[j]), real(out.at[j])));
                sum[j] += real(result.at[j]);
            }
            pack<N>(gz + i) = result;
        }
    for (int j = 0; j < N; ++j) mine[j] = sum[j];
    __syncthreads();
    // for each column, one thread adds the rows of the block in order
    for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < width; c += THREADS) {
        const int64 column = blockIdx.x * (int64)width + c;
        real total = 0;
        for (int y = 0; y < (int)blockDim.y; ++y) total += sums[y * width + c];
        if (column < cols) partial[blockIdx.y * cols + column] = total;
    }
}

// gz ← gh ⊙ f'(z); partial[block row] ← the column sums of gz over the block's rows.
// gz may be gh.  If f' does not read z or h, any array of that shape can be passed for it.
GPUMLP_KERNEL(activation_gradient, THREADS)
(const T* gh, const T* z, const T* h, T* gz, real* partial, int64 rows, int64 cols, int packed) {
    if (packed) gradient_tile<PACK>(gh, z, h, gz, partial, rows, cols);
    else gradient_tile<1>(gh, z, h, gz, partial, rows, cols);
}
