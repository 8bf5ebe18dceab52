// Stages of rows, such as norms: y of each row x depends on entries of x, on means over that row, and
// on parameters φ of each column.  Backward pass: gx and, for each row of φ, the sum over the rows.
//
// The entry supplies the numbers PARAMETERS, MEANS and SLOPES and, for an entry x of a row and gy of
// its gradient,
//     row_mean<I>(x, s)             s[I] is the mean of it over the row; it may read s[0] … s[I − 1]
//     row_y(x, s, phi)              y, where phi has the parameters of the column
//     row_slope<I>(x, gy, s, phi)   t[I] is the mean of it over the row
//     row_gx(x, gy, s, t, phi)      gx
//     row_dphi<I>(x, gy, s, phi)    what the entry adds to ∇φ[I] of its column
// `lanes` neighbouring threads of a block, a power of two, work on one row, which they read once
// and keep in registers.  Rows that are too wide for that have lanes = 0: a block reads them again.
// Of several networks: see member().
#include "common.cuh"
#include "rows.cuh"
#include "sums.cuh"

// 3 blocks on a multiprocessor leave 80 registers, and 2 leave 128: with fewer, sm_100 spills
#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT (sizeof(real) == 8 || MEANS > 1 ? 2 : 3)

// entries that a thread keeps of a row that has no 16-byte accesses, and of others
enum { NARROW = 8, HELD = sizeof(real) == 8 ? 8 : 16 };

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

// the parameters of N neighbouring columns
template <int N> struct Phi {
    Pack<N> row[PARAMETERS + 1];

    __device__ Phi(const T* phi, int64 cols, int64 c) : row() {
#pragma unroll
        for (int i = 0; i < PARAMETERS; ++i) row[i] = pack<N>(phi + i * cols + c);
    }
    __device__ void at(int j, real* phi) const {
#pragma unroll
        for (int i = 0; i < PARAMETERS; ++i) phi[i] = real(row[i].at[j]);
    }
};

// s[I], s[I + 1], … of the row of which v has the thread's entries
template <int N, int K, int I = 0>
__device__ void held_means(const real* v, real* s, int cols, int lanes) {
    if constexpr (I < MEANS) {
        real sum = 0;
#pragma unroll
        for (int k = 0; k < K; ++k)
            if (column<N>(k / N * N, lanes) < cols) sum += row_mean<I>(v[k], s);
        group_sums<1>(&sum, lanes);
        s[I] = sum / real(cols);
        held_means<N, K, I + 1>(v, s, cols, lanes);
    }
}

template <int N, int K>
__device__ void held_rows(const T* x, const T* phi, T* y, int64 rows, int cols, int lanes) {
    const int place = thread() / lanes, high = THREADS / lanes;
    for (int64 start = blockIdx.y * (int64)high; start < rows; start += gridDim.y * (int64)high) {
        const bool inside = start + place < rows;  // threads without a row go on, for the barriers
        const int64 i = inside ? (start + place) * cols : 0;
        const int end = inside ? cols : 0;
        real v[K], s[MEANS + 1];
        load<N, K>(x + i, end, lanes, v);
        held_means<N, K>(v, s, cols, lanes);
#pragma unroll
        for (int k = 0; k < K; k += N) {
            const int c = column<N>(k, lanes);
            if (c >= end) continue;
            const Phi<N> parameters(phi, cols, c);
            Pack<N> out;
#pragma unroll
            for (int j = 0; j < N; ++j) {
                real own[PARAMETERS + 1];
                parameters.at(j, own);
                out.at[j] = T(row_y(v[k + j], s, own));
            }
            pack<N>(y + i + c) = out;
        }
    }
}

// s[I], s[I + 1], … of a row of any width, by a block
template <int N, int I = 0> __device__ void wide_means(const T* row, int64 cols, real* s) {
    if constexpr (I < MEANS) {
        real sum = 0;
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(row + c);
            for (int j = 0; j < N; ++j) sum += row_mean<I>(real(a.at[j]), s);
        }
        s[I] = block_sum(sum) / real(cols);
        wide_means<N, I + 1>(row, cols, s);
    }
}

template <int N>
__device__ void wide_rows(const T* x, const T* phi, T* y, int64 rows, int64 cols) {
    for (int64 row = blockIdx.y; row < rows; row += gridDim.y) {
        real s[MEANS + 1];
        wide_means<N>(x + row * cols, cols, s);
#pragma unroll 1  // of several iterations, NVRTC stores the entries of a pack one by one
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(x + row * cols + c);
            const Phi<N> parameters(phi, cols, c);
            Pack<N> out;
            for (int j = 0; j < N; ++j) {
                real own[PARAMETERS + 1];
                parameters.at(j, own);
                out.at[j] = T(row_y(real(a.at[j]), s, own));
            }
            pack<N>(y + row * cols + c) = out;
        }
    }
}

// y ← the stage of each row of x.  y may be x.
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

// a[I] ← a[I] + row_slope<I>, and the same for I + 1, …
template <int I = 0>
__device__ void add_slopes(real* a, real x, real gy, const real* s, const real* phi) {
    if constexpr (I < SLOPES) {
        a[I] += row_slope<I>(x, gy, s, phi);
        add_slopes<I + 1>(a, x, gy, s, phi);
    }
}

// a[I · apart] ← a[I · apart] + row_dphi<I>, and the same for I + 1, …
template <int I = 0>
__device__ void add_dphi(real* a, int64 apart, real x, real gy, const real* s, const real* phi) {
    if constexpr (I < PARAMETERS) {
        a[I * apart] += row_dphi<I>(x, gy, s, phi);
        add_dphi<I + 1>(a, apart, x, gy, s, phi);
    }
}

// sums ← the block's sums of ∇φ over its rows
template <int N, int K>
__device__ void held_gradient(const T* x, const T* phi, const T* gy, const T* skip, T* gx,
                              real* sums, real* columns, int64 rows, int cols, int lanes) {
    const int place = thread() / lanes, high = THREADS / lanes;
    real dphi[(PARAMETERS + (PARAMETERS == 0)) * K] = {};
    for (int64 start = blockIdx.y * (int64)high; start < rows; start += gridDim.y * (int64)high) {
        const bool inside = start + place < rows;
        const int64 i = inside ? (start + place) * cols : 0;
        const int end = inside ? cols : 0;
        real v[K], g[K], s[MEANS + 1], t[SLOPES + 1] = {};
        load<N, K>(x + i, end, lanes, v);
        load<N, K>(gy + i, end, lanes, g);
        held_means<N, K>(v, s, cols, lanes);
#pragma unroll
        for (int k = 0; k < K; k += N) {
            const int c = column<N>(k, lanes);
            if (c >= end) continue;
            const Phi<N> parameters(phi, cols, c);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                real own[PARAMETERS + 1];
                parameters.at(j, own);
                add_dphi(dphi + k + j, K, v[k + j], g[k + j], s, own);
                add_slopes(t, v[k + j], g[k + j], s, own);
            }
        }
        if constexpr (SLOPES > 0) group_sums<SLOPES>(t, lanes);
#pragma unroll
        for (int l = 0; l < SLOPES; ++l) t[l] /= real(cols);
#pragma unroll
        for (int k = 0; k < K; k += N) {
            const int c = column<N>(k, lanes);
            if (c >= end) continue;
            const Phi<N> parameters(phi, cols, c);
            Pack<N> out = {};
            if (skip) out = pack<N>(skip + i + c);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                real own[PARAMETERS + 1];
                parameters.at(j, own);
                out.at[j] = T(row_gx(v[k + j], g[k + j], s, t, own) + real(out.at[j]));
            }
            pack<N>(gx + i + c) = out;
        }
    }
#pragma unroll
    for (int l = 0; l < PARAMETERS; ++l) {
        if (l > 0) __syncthreads();  // all threads have read the columns
        sum_columns<N, K>(dphi + l * K, columns, lanes);
        for (int c = thread(); c < cols; c += THREADS) sums[l * (int64)cols + c] = columns[c];
    }
}

// the same for rows of any width; the sums of a column are in memory, and of one thread
template <int N>
__device__ void wide_gradient(const T* x, const T* phi, const T* gy, const T* skip, T* gx,
                              real* sums, int64 rows, int64 cols) {
    for (int64 c = thread() * N; c < cols; c += THREADS * N)
        for (int i = 0; i < PARAMETERS; ++i)
            for (int j = 0; j < N; ++j) sums[i * cols + c + j] = 0;
    for (int64 row = blockIdx.y; row < rows; row += gridDim.y) {
        const int64 i = row * cols;
        real s[MEANS + 1], t[SLOPES + 1] = {};
        wide_means<N>(x + i, cols, s);
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(x + i + c), b = pack<N>(gy + i + c);
            const Phi<N> parameters(phi, cols, c);
            for (int j = 0; j < N; ++j) {
                real own[PARAMETERS + 1];
                parameters.at(j, own);
                add_dphi(sums + c + j, cols, real(a.at[j]), real(b.at[j]), s, own);
                add_slopes(t, real(a.at[j]), real(b.at[j]), s, own);
            }
        }
        for (int l = 0; l < SLOPES; ++l) t[l] = block_sum(t[l]) / real(cols);
#pragma unroll 1
        for (int64 c = thread() * N; c < cols; c += THREADS * N) {
            const Pack<N> a = pack<N>(x + i + c), b = pack<N>(gy + i + c);
            const Phi<N> parameters(phi, cols, c);
            Pack<N> out = {};
            if (skip) out = pack<N>(skip + i + c);
            for (int j = 0; j < N; ++j) {
                real own[PARAMETERS + 1];
                parameters.at(j, own);
                const real through = row_gx(real(a.at[j]), real(b.at[j]), s, t, own);
                out.at[j] = T(through + real(out.at[j]));
            }
            pack<N>(gx + i + c) = out;
        }
    }
}

// gx ← Jᵀ gy, or that + skip if `joined`, and ∇φ.  gx may be x, gy or skip.
// partial: (gridDim.y, PARAMETERS · cols); arrived: as in column_sums, for one column of blocks.
// apart, of_gradient: those of φ and of dφ.
GPUMLP_KERNEL(stage_gradient, THREADS)
(const T* x, const T* phi, const T* gy, const T* skip, T* gx, real* partial, T* dphi,
 unsigned* arrived, int64 rows, int64 cols, int64 apart, int64 of_gradient, int joined, int packed,
 int lanes) {
    after_previous_launch();
    __shared__ real columns[THREADS * HELD];
    const int64 entries = member() * rows * cols, width = PARAMETERS * cols;
    x += entries, gy += entries, gx += entries, phi += member() * apart;
    skip = joined ? skip + entries : nullptr;
    dphi += member() * of_gradient;
    partial += member() * gridDim.y * width, arrived += member() * (gridDim.y / 16 + 2);
    real* const sums = partial + blockIdx.y * width;
    if (lanes == 0) {
        if (packed) wide_gradient<PACK>(x, phi, gy, skip, gx, sums, rows, cols);
        else wide_gradient<1>(x, phi, gy, skip, gx, sums, rows, cols);
    } else {
        const int n = (int)cols;
        if (packed)
            held_gradient<PACK, HELD>(x, phi, gy, skip, gx, sums, columns, rows, n, lanes);
        else held_gradient<1, NARROW>(x, phi, gy, skip, gx, sums, columns, rows, n, lanes);
    }
    if constexpr (PARAMETERS > 0) add_rows(partial, dphi, arrived, width);
}
