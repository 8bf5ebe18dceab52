// A stage of columns whose means are the mean and the variance, such as batch norm, for a whole
// minibatch of at most HIGH · HELD rows: each array is read once and written once.  Forward: the work
// of column_moments and columns; backward: that of column_slopes and columns_gradient, see columns.cu.
//
// A block has all rows of a strip of columns.  Its threads keep their entries, of x in registers and
// of gy in shared memory, from the sums over them to what depends on the sums.
#include "common.cuh"
#include "column_stage.cuh"

// A thread has WIDE columns.  Threads side by side, for 32 bytes of a row; one above the other; and
// the most rows of a thread.
enum { LANES = 32 / (WIDE * sizeof(T)), HIGH = THREADS / LANES, HELD = 1024 / HIGH };

// K numbers for each column of a thread
template <int K> struct Numbers { real of[K][WIDE]; };

// Call f(r, i) for each row of a thread; i: where its entries of the row are in an array
template <class F> __device__ inline void each_row(int64 rows, int64 cols, const F& f) {
    const int64 col = first() * WIDE;
#pragma unroll
    for (int r = 0; r < HELD; ++r) {
        const int64 row = threadIdx.y + r * HIGH;
        if (row < rows && col < cols) f(r, row * cols + col);
    }
}

// numbers ← their sums over the rows of the block, in a fixed order
template <int K> __device__ void add_up(Numbers<K>& numbers) {
    __shared__ Numbers<K> parts[THREADS / 32][LANES];
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int j = 0; j < WIDE; ++j)
            for (int other = LANES; other < 32; other *= 2)
                numbers.of[k][j] += __shfl_xor_sync(ALL_LANES, numbers.of[k][j], other);
    __syncthreads();  // all threads have read the parts of an earlier call
    if (thread() % 32 < LANES) parts[thread() / 32][threadIdx.x] = numbers;
    __syncthreads();
    numbers = parts[0][threadIdx.x];
#pragma unroll 1  // with the parts of all warps at once, threads would spill
    for (int warp = 1; warp < THREADS / 32; ++warp)
#pragma unroll
        for (int k = 0; k < K; ++k)
#pragma unroll
            for (int j = 0; j < WIDE; ++j)
                numbers.of[k][j] += parts[warp][threadIdx.x].of[k][j];
}

// moments, running: as those of column_moments; y ← the stage of x
GPUMLP_KERNEL(whole_columns, THREADS)
(const T* x, const T* phi, real* moments, real* running, T* y, int64 rows, int64 cols, int64 wide,
 int averaged) {
    after_previous_launch();
    const int64 col = first() * WIDE;
    const real share = rows > 0 ? real(1) / real(rows) : real(0);
    Pack<WIDE> held[HELD] = {}, of_first = {};
    each_row(rows, cols, [&](int r, int64 i) { held[r] = pack<WIDE>(x + i); });
    if (rows > 0 && col < cols) of_first = pack<WIDE>(x + col);
    // without the digits that all rows have in common, none are lost
    const auto apart = [&](int r, int j) { return real(held[r].at[j]) - real(of_first.at[j]); };
    Numbers<1> mean = {}, variance = {};
    each_row(rows, cols, [&](int r, int64) {
#pragma unroll
        for (int j = 0; j < WIDE; ++j) mean.of[0][j] += apart(r, j);
    });
    add_up(mean);
#pragma unroll
    for (int j = 0; j < WIDE; ++j) mean.of[0][j] *= share;
    each_row(rows, cols, [&](int r, int64) {
#pragma unroll
        for (int j = 0; j < WIDE; ++j) {
            const real d = apart(r, j) - mean.of[0][j];
            variance.of[0][j] += d * d;
        }
    });
    add_up(variance);
    if (col >= cols) return;
    real s[WIDE][2];
#pragma unroll
    for (int j = 0; j < WIDE; ++j) {
        s[j][0] = real(of_first.at[j]) + mean.of[0][j], s[j][1] = share * variance.of[0][j];
        if (threadIdx.y > 0) continue;
        for (int i = 0; i < 2; ++i) {
            moments[i * wide + col + j] = s[j][i];
            if (averaged) average(i, s[j][i], running[i * cols + col + j], real(rows));
        }
        moments[2 * wide + col + j] = real(rows);
    }
    const OfColumns<WIDE, PARAMETERS, T> parameters(phi + col, cols, true);
    each_row(rows, cols, [&](int r, int64 i) {
        Pack<WIDE> out = {};
#pragma unroll
        for (int j = 0; j < WIDE; ++j) {
            real own[PARAMETERS + 1];
            parameters.at(j, own);
            out.at[j] = T(row_y(real(held[r].at[j]), s[j], own));
        }
        pack<WIDE>(y + i) = out;
    });
}

// sums[I], sums[I + 1], … ← themselves + what an entry of column j adds: to the slopes, and then to dφ
template <int K, int I = 0>
__device__ inline void add_entry(Numbers<K>& sums, int j, real x, real gy, const real* s,
                                 const real* phi) {
    if constexpr (I < SLOPES) sums.of[I][j] += row_slope<I>(x, gy, s, phi);
    else if constexpr (I < K) sums.of[I][j] += row_dphi<I - SLOPES>(x, gy, s, phi);
    if constexpr (I + 1 < K) add_entry<K, I + 1>(sums, j, x, gy, s, phi);
}

// dφ, and gx ← the gradient of x, and + skip if `added`
GPUMLP_KERNEL(whole_columns_gradient, THREADS)
(const T* x, const T* phi, const T* gy, const real* s, T* dphi, const T* skip, T* gx, int64 rows,
 int64 cols, int64 wide, int added) {
    __shared__ Pack<WIDE> of_gy[HELD][THREADS];
    after_previous_launch();
    const int64 col = first() * WIDE;
    const OfColumns<WIDE, PARAMETERS, T> parameters(phi + col, cols, col < cols);
    const OfColumns<WIDE, MEANS, real> means(s + col, wide, col < cols);
    Pack<WIDE> held[HELD] = {};
    // f(j, x, gy, s, φ) for each column of row r
    const auto each_column = [&](int r, const auto& f) {
        const Pack<WIDE> g = of_gy[r][thread()];
#pragma unroll
        for (int j = 0; j < WIDE; ++j) {
            real s_own[MEANS + 1], phi_own[PARAMETERS + 1];
            means.at(j, s_own), parameters.at(j, phi_own);
            f(j, real(held[r].at[j]), real(g.at[j]), s_own, phi_own);
        }
    };
    each_row(rows, cols, [&](int r, int64 i) {
        held[r] = pack<WIDE>(x + i), of_gy[r][thread()] = pack<WIDE>(gy + i);
    });
    Numbers<SLOPES + PARAMETERS> sums = {};
    each_row(rows, cols, [&](int r, int64) {
        each_column(r, [&](int j, real x, real gy, const real* s, const real* phi) {
            add_entry(sums, j, x, gy, s, phi);
        });
    });
    add_up(sums);
    if (col >= cols) return;
    real t[WIDE][SLOPES + 1];
#pragma unroll
    for (int j = 0; j < WIDE; ++j) {
#pragma unroll
        for (int k = 0; k < SLOPES; ++k) t[j][k] = sums.of[k][j] / real(rows);
#pragma unroll
        for (int k = 0; k < PARAMETERS; ++k)
            if (threadIdx.y == 0) dphi[k * cols + col + j] = T(sums.of[SLOPES + k][j]);
    }
    each_row(rows, cols, [&](int r, int64 i) {
        Pack<WIDE> out = {};
        if (added) out = pack<WIDE>(skip + i);
        each_column(r, [&](int j, real x, real gy, const real* s, const real* phi) {
            const real more = row_gx(x, gy, s, t[j], phi);
            out.at[j] = T(added ? more + real(out.at[j]) : more);
        });
        pack<WIDE>(gx + i) = out;
    });
}
