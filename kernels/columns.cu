// Stages of columns, such as batch norm: y depends on entries of x, on means over each column of a
// minibatch, and on parameters φ of each column.  Backward pass: gx and, for each row of φ, the sum
// over the rows.
//
// What the entry supplies: see column_stage.cuh.
// Matrices are (rows, cols), row-major.  The means s and t are (MEANS, wide) and (SLOPES, wide) with
// wide ≥ cols.  A block covers a tile of columns, see columns.cuh.
#include "common.cuh"
#include "column_stage.cuh"
#include "columns.cuh"
#include "sums.cuh"

template <int N, int I>
__device__ void mean_tile(const T* x, const real* s, real* mean, real* partial, unsigned* arrived,
                          int64 rows, int64 cols, int64 wide, real share) {
    const int64 col = first() * N;
    const OfColumns<N, I, real> before(s + col, wide, col < cols);
    real sum[N] = {};
    down_columns<N>(x, rows, cols, [&](int64, const Pack<N>& a) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
            real own[I + 1];
            before.at(j, own);
            sum[j] += row_mean<I>(real(a.at[j]), own);
        }
    });
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] *= share;
    column_sums<N>(sum, partial, mean, arrived, cols);
}

// the tile of the mean number `which`
template <int N, int I = 0>
__device__ void mean_of(int which, const T* x, const real* s, real* mean, real* partial,
                        unsigned* arrived, int64 rows, int64 cols, int64 wide, real share) {
    if constexpr (I < MEANS) {
        if (which == I)
            mean_tile<N, I>(x, s, mean, partial, arrived, rows, cols, wide, share);
        else mean_of<N, I + 1>(which, x, s, mean, partial, arrived, rows, cols, wide, share);
    }
}

// mean ← share · Σ over the rows of what s[which] is the mean of.  s: the means before.
// partial, arrived: see column_sums.
GPUMLP_KERNEL(column_mean, THREADS)
(const T* x, const real* s, real* mean, real* partial, unsigned* arrived, int64 rows, int64 cols,
 int64 wide, real share, int which, int packed) {
    after_previous_launch();
    if (packed) mean_of<PACK>(which, x, s, mean, partial, arrived, rows, cols, wide, share);
    else mean_of<1>(which, x, s, mean, partial, arrived, rows, cols, wide, share);
}

template <int N>
__device__ void moments_tile(const T* x, real* moments, real* running, Moments* partial,
                             unsigned* arrived, int64 rows, int64 cols, int64 wide, int averaged) {
    const int64 col = first() * N;
    Pack<N> of_first = {};
    if (rows > 0 && col < cols) of_first = pack<N>(x + col);
    Moments own[N] = {};
    real count = 0;
    down_columns<N>(x, rows, cols, [&](int64, const Pack<N>& a) {
        count += real(1);
        const real share = real(1) / count;
#pragma unroll
        for (int j = 0; j < N; ++j)
            own[j].join(real(a.at[j]) - real(of_first.at[j]), real(0), share);
    });
#pragma unroll
    for (int j = 0; j < N; ++j) own[j].count = count;
    if (!column_sums<N>(own, partial, partial, arrived, cols)) return;
    __syncthreads();  // all threads have written what follows reads
    const int64 start = blockIdx.x * (int64)blockDim.x * N, stop = start + blockDim.x * N;
    for (int64 c = start + thread(); c < stop && c < cols; c += THREADS) {
        const Moments all = partial[c];
        const real s[2] = {rows > 0 ? all.mean + real(x[c]) : all.mean, all.variance};
        for (int i = 0; i < 2; ++i) {
            moments[i * wide + c] = s[i];
            if (averaged) average(i, s[i], running[i * cols + c], all.count);
        }
        moments[2 * wide + c] = all.count;
    }
}

// moments (3, wide) ← the mean, the variance and the number of the rows of each column; running: see
// running_mean, for these rows, if `averaged`.  Differences from the first row are joined: without the
// digits that all rows have in common, none are lost.  partial: (3 · gridDim.y, cols), and arrived:
// see column_sums.
GPUMLP_KERNEL(column_moments, THREADS)
(const T* x, real* moments, real* running, real* partial, unsigned* arrived, int64 rows, int64 cols,
 int64 wide, int averaged, int packed) {
    after_previous_launch();
    Moments* const parts = (Moments*)partial;
    if (packed)
        moments_tile<PACK>(x, moments, running, parts, arrived, rows, cols, wide, averaged);
    else moments_tile<1>(x, moments, running, parts, arrived, rows, cols, wide, averaged);
}

template <int N>
__device__ void columns_tile(const T* x, const T* phi, const real* s, T* y, int64 rows, int64 cols,
                             int64 wide) {
    const int64 col = first() * N;
    if (col >= cols) return;
    const OfColumns<N, PARAMETERS, T> parameters(phi + col, cols, true);
    const OfColumns<N, MEANS, real> means(s + col, wide, true);
    down_columns<N>(x, rows, cols, [&](int64 i, Pack<N> a) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
            real own[MEANS + 1], phi_own[PARAMETERS + 1];
            means.at(j, own), parameters.at(j, phi_own);
            a.at[j] = T(row_y(real(a.at[j]), own, phi_own));
        }
        pack<N>(y + i) = a;
    });
}

// y ← the stage of x for the means s
GPUMLP_KERNEL(columns, THREADS)
(const T* x, const T* phi, const real* s, T* y, int64 rows, int64 cols, int64 wide, int packed) {
    after_previous_launch();
    if (packed) columns_tile<PACK>(x, phi, s, y, rows, cols, wide);
    else columns_tile<1>(x, phi, s, y, rows, cols, wide);
}

// running ← running + momentum (s − running), (MEANS, cols); of: the rows of the whole minibatch
GPUMLP_KERNEL(running_mean, THREADS)
(const real* s, real* running, int64 cols, int64 wide, int64 of) {
    after_previous_launch();
    for (int64 c = first(); c < cols; c += stride())
        for (int i = 0; i < MEANS; ++i)
            average(i, s[i * wide + c], running[i * cols + c], real(of));
}

// sums[I · N], sums[(I + 1) · N], … ← themselves + what an entry adds: to the slopes, and then to dφ
template <int N, int I = 0>
__device__ inline void add_entry(real* sums, real x, real gy, const real* s, const real* phi) {
    if constexpr (I < SLOPES) sums[I * N] += row_slope<I>(x, gy, s, phi);
    else if constexpr (I < SLOPES + PARAMETERS) sums[I * N] += row_dphi<I - SLOPES>(x, gy, s, phi);
    if constexpr (I + 1 < SLOPES + PARAMETERS) add_entry<N, I + 1>(sums, x, gy, s, phi);
}

template <int N>
__device__ void slopes_tile(const T* x, const T* phi, const T* gy, const real* s, real* t, T* dphi,
                            real* partial, unsigned* arrived, int64 rows, int64 cols, int64 wide,
                            real share, int slopes) {
    const int64 col = first() * N, next = row_stride() * cols, end = col < cols ? rows * cols : 0;
    const OfColumns<N, PARAMETERS, T> parameters(phi + col, cols, col < cols);
    const OfColumns<N, MEANS, real> means(s + col, wide, col < cols);
    real sums[(SLOPES + PARAMETERS) * N + 1] = {};
    for (int64 i = first_row() * cols + col; i < end; i += next) {
        const Pack<N> a = pack<N>(x + i), g = pack<N>(gy + i);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            real own[MEANS + 1], phi_own[PARAMETERS + 1];
            means.at(j, own), parameters.at(j, phi_own);
            add_entry<N>(sums + j, real(a.at[j]), real(g.at[j]), own, phi_own);
        }
    }
#pragma unroll
    for (int l = 0; l < SLOPES + PARAMETERS; ++l) {
        if (l < SLOPES && !slopes) continue;
        if (l > 0) __syncthreads();  // all threads have read the sums before
        if (l < SLOPES) {
#pragma unroll
            for (int j = 0; j < N; ++j) sums[l * N + j] *= share;
            column_sums<N>(sums + l * N, partial, t + l * wide, arrived, cols);
        } else {
            column_sums<N>(sums + l * N, partial, dphi + (l - SLOPES) * cols, arrived, cols);
        }
        partial += gridDim.y * cols, arrived += column_counts();
    }
}

// t ← share · the sums of the slopes, unless `slopes` is 0, and dφ.  partial and arrived: as those of
// column_sums, for each of these sums.
GPUMLP_KERNEL(column_slopes, THREADS)
(const T* x, const T* phi, const T* gy, const real* s, real* t, T* dphi, real* partial,
 unsigned* arrived, int64 rows, int64 cols, int64 wide, real share, int slopes, int packed) {
    after_previous_launch();
    if (packed)
        slopes_tile<PACK>(x, phi, gy, s, t, dphi, partial, arrived, rows, cols, wide, share, slopes);
    else slopes_tile<1>(x, phi, gy, s, t, dphi, partial, arrived, rows, cols, wide, share, slopes);
}

template <int N>
__device__ void gradient_tile(const T* x, const T* phi, const T* gy, const real* s, const real* t,
                              const T* skip, T* gx, int64 rows, int64 cols, int64 wide, int slopes,
                              int added) {
    const int64 col = first() * N, next = row_stride() * cols, end = rows * cols;
    if (col >= cols) return;
    const OfColumns<N, PARAMETERS, T> parameters(phi + col, cols, true);
    const OfColumns<N, MEANS, real> means(s + col, wide, true);
    const OfColumns<N, SLOPES, real> all(t + col, wide, slopes != 0);
    for (int64 i = first_row() * cols + col; i < end; i += next) {
        const Pack<N> a = pack<N>(x + i), g = pack<N>(gy + i);
        Pack<N> out = {};
        if (added) out = pack<N>(skip + i);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            real own[MEANS + 1], t_own[SLOPES + 1], phi_own[PARAMETERS + 1];
            means.at(j, own), all.at(j, t_own), parameters.at(j, phi_own);
            const real more = row_gx(real(a.at[j]), real(g.at[j]), own, t_own, phi_own);
            out.at[j] = T(added ? more + real(out.at[j]) : more);
        }
        pack<N>(gx + i) = out;
    }
}

// gx ← the gradient of x, and + skip if `added`; with `slopes` 0 for t = 0
GPUMLP_KERNEL(columns_gradient, THREADS)
(const T* x, const T* phi, const T* gy, const real* s, const real* t, const T* skip, T* gx,
 int64 rows, int64 cols, int64 wide, int slopes, int added, int packed) {
    after_previous_launch();
    if (packed)
        gradient_tile<PACK>(x, phi, gy, s, t, skip, gx, rows, cols, wide, slopes, added);
    else gradient_tile<1>(x, phi, gy, s, t, skip, gx, rows, cols, wide, slopes, added);
}
