// Norms of rows.  Forward pass: y = γ ⊙ x̂ + β with x̂ = (x − mean) / σ, or y = γ ⊙ x̂ with
// x̂ = x / σ, where σ² = eps + the mean of (x − mean)² or of x².  Backward pass: gx, and the sums
// over the rows ∇γ = Σ gy ⊙ x̂ and ∇β = Σ gy.
//
// The entry supplies the constants eps and PARAMETERS, the number of rows of φ: γ, or γ and β.
// `lanes` neighbouring threads of a block, a power of two, work on one row, which they read once
// and keep in registers.  Rows that are too wide for that have lanes = 0: a block reads them again.
// Of several networks: see member().
#include "common.cuh"
#include "sums.cuh"

// 3 blocks on a multiprocessor leave 80 registers: with 64, sm_100 spills
#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT (sizeof(real) == 8 ? 2 : 3)

// entries that a thread keeps of a row that has no 16-byte accesses, and of others
enum { NARROW = 8, HELD = sizeof(real) == 8 ? 8 : 16, CENTRED = PARAMETERS == 2 };

// each x ← its sum over each group of `lanes` neighbouring threads, in a fixed order; every thread
// of the block takes part
template <int COUNT> __device__ void group_sums(real* x, int lanes) {
    __shared__ real part[COUNT * THREADS / 32];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) x[i] = warp_sum(x[i], lanes < 32 ? lanes : 32);
    if (lanes <= 32) return;
    const int warps = lanes / 32, own = thread() / 32, first = own / warps * warps;
    __syncthreads();  // all threads have read the parts of an earlier call
    if (thread() % 32 == 0)
        for (int i = 0; i < COUNT; ++i) part[i * THREADS / 32 + own] = x[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        x[i] = part[i * THREADS / 32 + first];
        for (int warp = 1; warp < warps; ++warp) x[i] += part[i * THREADS / 32 + first + warp];
    }
}

// the column of the first of the N neighbouring entries that the thread keeps at k
template <int N> __device__ int column(int k, int lanes) {
    return k * lanes + thread() % lanes * N;
}

// v ← the thread's entries of a row, and 0 beyond its end
template <int N, int K> __device__ void load(const T* row, int end, int lanes, real* v) {
#pragma unroll
    for (int k = 0; k < K; k += N) {
        const int c = column<N>(k, lanes);
        Pack<N> a = {};
        if (c < end) a = pack<N>(row + c);
#pragma unroll
        for (int j = 0; j < N; ++j) v[k + j] = real(a.at[j]);
    }
}

// v ← x̂ of the row x that v holds; 1 / σ
template <int N, int K> __device__ real normalize(real* v, int cols, int lanes) {
    real sum = 0;
    if constexpr (CENTRED) {
#pragma unroll
        for (int k = 0; k < K; ++k) sum += v[k];
        group_sums<1>(&sum, lanes);
        const real mean = sum / real(cols);
#pragma unroll
        for (int k = 0; k < K; ++k)
            if (column<N>(k / N * N, lanes) < cols) v[k] -= mean;
        sum = 0;
    }
#pragma unroll
    for (int k = 0; k < K; ++k) sum += v[k] * v[k];
    group_sums<1>(&sum, lanes);
    const real scale = real(1) / sqrt(sum / real(cols) + eps);
#pragma unroll
    for (int k = 0; k < K; ++k) v[k] *= scale;
    return scale;
}

template <int N, int K>
__device__ void held_rows(const T* x, const T* phi, T* y, int64 rows, int cols, int lanes) {
    const int place = thread() / lanes, high = THREADS / lanes;
    for (int64 start = blockIdx.y * (int64)high; start < rows; start += gridDim.y * (int64)high) {
        const bool inside = start + place < rows;  // threads without a row go on, for the barriers
        const int64 i = inside ? (start + place) * cols : 0;
        const int end = inside ? cols : 0;
        real v[K];
        load<N, K>(x + i, end, lanes, v);
        normalize<N, K>(v, cols, lanes);
#pragma unroll
        for (int k = 0; k < K; k += N) {
            const int c = column<N>(k, lanes);
            if (c >= end) continue;
            const Pack<N> gamma = pack<N>(phi + c);
            Pack<N> beta = {}, out;
            if constexpr (CENTRED) beta = pack<N>(phi + cols + c);
#pragma unroll
            for (int j = 0; j < N; ++j)
                out.at[j] = T(v[k + j] * real(gamma.at[j]) + real(beta.at[j]));
            pack<N>(y + i + c) = out;
        }
    }
}

// mean (0 if it is not subtracted) and 1 / σ of a row of any width, by a block
template <int N>
__device__ void statistics(const T* row, int64 cols, real& mean, real& scale) {
    real sum = 0;
    mean = 0;
    if constexpr (CENTRED) {
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(row + c);
            for (int j = 0; j < N; ++j) sum += real(a.at[j]);
        }
        mean = block_sum(sum) / real(cols);
        sum = 0;
    }
    for (int64 c = thread() * N; c < cols; c += THREADS * N) {
        const Pack<N> a = pack<N>(row + c);
        for (int j = 0; j < N; ++j) sum += (real(a.at[j]) - mean) * (real(a.at[j]) - mean);
    }
    scale = real(1) / sqrt(block_sum(sum) / real(cols) + eps);
}

template <int N>
__device__ void wide_rows(const T* x, const T* phi, T* y, int64 rows, int64 cols) {
    for (int64 row = blockIdx.y; row < rows; row += gridDim.y) {
        real mean, scale;
        statistics<N>(x + row * cols, cols, mean, scale);
#pragma unroll 1  // of several iterations, NVRTC stores the entries of a pack one by one
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(x + row * cols + c), gamma = pack<N>(phi + c);
            Pack<N> beta = {}, out;
            if constexpr (CENTRED) beta = pack<N>(phi + cols + c);
            for (int j = 0; j < N; ++j) {
                const real normal = (real(a.at[j]) - mean) * scale;
                out.at[j] = T(normal * real(gamma.at[j]) + real(beta.at[j]));
            }
            pack<N>(y + row * cols + c) = out;
        }
    }
}

// y ← the norm of each row of x.  y may be x.
GPUMLP_KERNEL(stage, THREADS)
(const T* x, const T* phi, T* y, int64 rows, int64 cols, int64 apart, int packed, int lanes) {
    after_previous_launch();
    x += member() * rows * cols, y += member() * rows * cols, phi += member() * apart;
    if (lanes == 0) {
        if (packed) wide_rows<PACK>(x, phi, y, rows, cols);
        else wide_rows<1>(x, phi, y, rows, cols);
    } else {
        if (packed) held_rows<PACK, HELD>(x, phi, y, rows, (int)cols, lanes);
        else held_rows<1, NARROW>(x, phi, y, rows, (int)cols, lanes);
    }
}

// 2 blocks on a multiprocessor leave 128 registers for the entries and column sums of a thread
#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT (sizeof(real) == 8 ? 1 : 2)

// sums ← the block's sums of gy ⊙ x̂ and of gy over its rows
template <int N, int K>
__device__ void held_gradient(const T* x, const T* phi, const T* gy, T* gx, real* sums,
                              real* columns, int64 rows, int cols, int lanes) {
    const int place = thread() / lanes, high = THREADS / lanes;
    real dgamma[K] = {}, dbeta[K] = {};
    for (int64 start = blockIdx.y * (int64)high; start < rows; start += gridDim.y * (int64)high) {
        const bool inside = start + place < rows;
        const int64 i = inside ? (start + place) * cols : 0;
        const int end = inside ? cols : 0;
        real v[K], g[K], of_row[2] = {};
        load<N, K>(x + i, end, lanes, v);
        load<N, K>(gy + i, end, lanes, g);
        const real scale = normalize<N, K>(v, cols, lanes);
#pragma unroll
        for (int k = 0; k < K; k += N) {
            const int c = column<N>(k, lanes);
            Pack<N> gamma = {};
            if (c < end) gamma = pack<N>(phi + c);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                dgamma[k + j] += g[k + j] * v[k + j];
                dbeta[k + j] += g[k + j];
                g[k + j] *= real(gamma.at[j]);
                of_row[0] += g[k + j] * v[k + j];
                of_row[1] += g[k + j];
            }
        }
        group_sums<PARAMETERS>(of_row, lanes);
        const real slope = of_row[0] / real(cols);
        const real shift = CENTRED ? of_row[1] / real(cols) : real(0);
#pragma unroll
        for (int k = 0; k < K; k += N) {
            const int c = column<N>(k, lanes);
            if (c >= end) continue;
            Pack<N> out;
#pragma unroll
            for (int j = 0; j < N; ++j)
                out.at[j] = T(scale * (g[k + j] - v[k + j] * slope - shift));
            pack<N>(gx + i + c) = out;
        }
    }
    sum_columns<N, K>(dgamma, columns, lanes);
    for (int c = thread(); c < cols; c += THREADS) sums[c] = columns[c];
    if constexpr (CENTRED) {
        __syncthreads();  // all threads have read the columns
        sum_columns<N, K>(dbeta, columns, lanes);
        for (int c = thread(); c < cols; c += THREADS) sums[cols + c] = columns[c];
    }
}

// the same for rows of any width; the sums of a column are in memory, and of one thread
template <int N>
__device__ void wide_gradient(const T* x, const T* phi, const T* gy, T* gx, real* sums, int64 rows,
                              int64 cols) {
    for (int64 c = thread() * N; c < cols; c += THREADS * N)
        for (int i = 0; i < PARAMETERS; ++i)
            for (int j = 0; j < N; ++j) sums[i * cols + c + j] = 0;
    for (int64 row = blockIdx.y; row < rows; row += gridDim.y) {
        const int64 i = row * cols;
        real mean, scale, slope = 0, shift = 0;
        statistics<N>(x + i, cols, mean, scale);
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(x + i + c), b = pack<N>(gy + i + c), gamma = pack<N>(phi + c);
            for (int j = 0; j < N; ++j) {
                const real normal = (real(a.at[j]) - mean) * scale, g = real(b.at[j]);
                sums[c + j] += g * normal;
                if constexpr (CENTRED) sums[cols + c + j] += g;
                slope += g * real(gamma.at[j]) * normal;
                shift += g * real(gamma.at[j]);
            }
        }
        slope = block_sum(slope) / real(cols);
        shift = CENTRED ? block_sum(shift) / real(cols) : real(0);
#pragma unroll 1
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(x + i + c), b = pack<N>(gy + i + c), gamma = pack<N>(phi + c);
            Pack<N> out;
            for (int j = 0; j < N; ++j) {
                const real normal = (real(a.at[j]) - mean) * scale;
                out.at[j] =
                    T(scale * (real(b.at[j]) * real(gamma.at[j]) - normal * slope - shift));
            }
            pack<N>(gx + i + c) = out;
        }
    }
}

// gx ← Jᵀ gy, and dφ ← (∇γ, ∇β).  gx may be x or gy.  partial: (gridDim.y, PARAMETERS · cols);
// arrived: as in column_sums, for one column of blocks.  apart, of_gradient: those of φ and of dφ.
GPUMLP_KERNEL(stage_gradient, THREADS)
(const T* x, const T* phi, const T* gy, T* gx, real* partial, T* dphi, unsigned* arrived,
 int64 rows, int64 cols, int64 apart, int64 of_gradient, int packed, int lanes) {
    after_previous_launch();
    __shared__ real columns[THREADS * HELD];
    const int64 entries = member() * rows * cols, width = PARAMETERS * cols;
    x += entries, gy += entries, gx += entries, phi += member() * apart;
    dphi += member() * of_gradient;
    partial += member() * gridDim.y * width, arrived += member() * (gridDim.y / 16 + 2);
    real* const sums = partial + blockIdx.y * width;
    if (lanes == 0) {
        if (packed) wide_gradient<PACK>(x, phi, gy, gx, sums, rows, cols);
        else wide_gradient<1>(x, phi, gy, gx, sums, rows, cols);
    } else {
        if (packed)
            held_gradient<PACK, HELD>(x, phi, gy, gx, sums, columns, rows, (int)cols, lanes);
        else held_gradient<1, NARROW>(x, phi, gy, gx, sums, columns, rows, (int)cols, lanes);
    }
    add_rows(partial, dphi, arrived, width);
}
