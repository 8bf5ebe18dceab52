// Cross-entropy of softmax(ŷ) and y, for logits ŷ, its gradient times the loss scale S = scaling[0],
// and the gradient's column sums.
//
// `lanes` neighbouring threads of a block, a power of two, work on one row, which they read once and
// keep in registers.  Rows that are too wide for that have lanes = 0: a warp reads them twice, and
// does not sum the columns.  Blocks are (32, THREADS / 32).  The entry supplies the constant
// smoothing.  y is (rows, cols), or integer labels (rows): see target.cuh.
#include "common.cuh"
#include "sums.cuh"
#include "cost.cuh"
#include "rows.cuh"
#include "target.cuh"

// 2 blocks on a multiprocessor leave 128 registers for the outputs and column sums of a thread
#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT 2

// entries that a thread keeps: of rows up to 32 NARROW wide, whatever their alignment, and of others
enum { NARROW = 8, HELD = sizeof(real) == 8 ? 8 : 16, MOST_LANES = 64 };

// whether a row has one target of 1, at its label
__device__ inline bool one_target() { return is_label((const Y*)0) && smoothing == real(0); }

// the smoothed targets of N neighbouring outputs
template <int N>
__device__ void smoothed(const Y* y, int64 row, int64 col, int64 cols, real* t) {
    targets<N>(y, row, col, cols, t);
    if (smoothing == real(0)) return;
    for (int j = 0; j < N; ++j) t[j] = t[j] * (real(1) - smoothing) + smoothing / real(cols);
}

// Σ or maximum over each group of `lanes` neighbouring threads; every thread of the block takes part
template <class R, class Join> __device__ R group(R x, int lanes, const Join& join) {
    __shared__ R part[THREADS / 32];
    for (int other = (lanes < 32 ? lanes : 32) / 2; other > 0; other /= 2)
        x = join(x, __shfl_xor_sync(ALL_LANES, x, other));
    if (lanes <= 32) return x;
    const int warps = lanes / 32, own = thread() / 32, first = own / warps * warps;
    __syncthreads();  // all threads have read the parts of an earlier call
    if (thread() % 32 == 0) part[own] = x;
    __syncthreads();
    x = part[first];
    for (int warp = 1; warp < warps; ++warp) x = join(x, part[first + warp]);
    return x;
}
__device__ inline real group_sum(real x, int lanes) {
    return group(x, lanes, [](real a, real b) { return a + b; });
}
__device__ inline real group_max(real x, int lanes) {
    return group(x, lanes, [](real a, real b) { return fmax(a, b); });
}

// Σ of the losses of the thread's rows; K entries a thread.  columns ← the column sums of gh over
// the block's rows.
template <int N, int K, bool WITH_GRADIENT>
__device__ real held_rows(const T* y_hat, const Y* y, const real* weights, real S, T* gh,
                          real* columns, int64 rows, int64 cols, int lanes) {
    const int lane = thread() % lanes, place = thread() / lanes, high = THREADS / lanes;
    const int end = (int)cols;
    real all = 0, sums[K] = {};
    for (int64 start = blockIdx.y * (int64)high; start < rows; start += gridDim.y * (int64)high) {
        const int64 row = start + place;
        const bool inside = row < rows;  // the threads of other rows go on, for the barriers
        const int64 i = inside ? row * cols : 0;
        real v[K], t[N], top = lowest(), aim = 0, mass = 1, sum = 0;
        for (int k = 0; k < K; k += N) {
            const int c = k * lanes + lane * N;
            Pack<N> a = {};
            if (inside && c < end) a = pack<N>(y_hat + i + c);
            for (int j = 0; j < N; ++j) {
                v[k + j] = inside && c < end ? real(a.at[j]) : lowest();
                top = fmax(top, v[k + j]);
            }
        }
        top = group_max(top, lanes);
        if (one_target()) {
            if (inside) aim = real(y_hat[i + label_of(y, row)]) - top;
        } else {
            mass = 0;
            for (int k = 0; k < K; k += N) {
                const int c = k * lanes + lane * N;
                if (!inside || c >= end) continue;
                smoothed<N>(y, row, c, cols, t);
                for (int j = 0; j < N; ++j) aim += times(t[j], v[k + j] - top), mass += t[j];
            }
            aim = group_sum(aim, lanes);
            mass = group_sum(mass, lanes);
        }
        for (int k = 0; k < K; k += N)
            for (int j = 0; j < N; ++j) {
                v[k + j] = k * lanes + lane * N < end ? exp(v[k + j] - top) : real(0);
                sum += v[k + j];
            }
        sum = group_sum(sum, lanes);
        const real share = inside ? weights[row] : real(0), scale = mass / sum;
        // log(sum) is that of ŷ − top, which is exact, whatever the logits' offset
        if (lane == 0) all += times(share, times(mass, log(sum)) - aim);
        if constexpr (WITH_GRADIENT)
            for (int k = 0; k < K; k += N) {
                const int c = k * lanes + lane * N;
                if (!inside || c >= end) continue;
                Pack<N> a;
                smoothed<N>(y, row, c, cols, t);
                for (int j = 0; j < N; ++j) {
                    a.at[j] = T(times(S * share, v[k + j] * scale - t[j]));
                    sums[k + j] += real(a.at[j]);
                }
                pack<N>(gh + i + c) = a;
            }
    }
    if constexpr (WITH_GRADIENT) sum_columns<N, K>(sums, columns, lanes);
    return all;
}

// Σ of the losses of the thread's rows, which are of any width
template <int N, bool WITH_GRADIENT>
__device__ real wide_rows(const T* y_hat, const Y* y, const real* weights, real S, T* gh,
                          int64 rows, int64 cols) {
    real all = 0;
    for (int64 row = first_row(); row < rows; row += row_stride()) {
        const T* const x = y_hat + row * cols;
        real top, sum, t[N], aim = 0, mass = 1;
        max_and_sum<N>(x, cols, top, sum);
        if (one_target()) {
            aim = real(x[label_of(y, row)]) - top;
        } else {
            mass = 0;
            for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
                const Pack<N> a = pack<N>(x + c);
                smoothed<N>(y, row, c, cols, t);
                for (int j = 0; j < N; ++j) {
                    aim += times(t[j], real(a.at[j]) - top);
                    mass += t[j];
                }
            }
            aim = warp_sum(aim);
            mass = warp_sum(mass);
        }
        const real share = weights[row], scale = mass / sum;
        if (threadIdx.x == 0) all += times(share, times(mass, log(sum)) - aim);
        if constexpr (WITH_GRADIENT)
            for (int64 c = threadIdx.x * N; c < cols; c += 32 * N) {
                Pack<N> a = pack<N>(x + c);
                smoothed<N>(y, row, c, cols, t);
                for (int j = 0; j < N; ++j)
                    a.at[j] = T(times(S * share, exp(real(a.at[j]) - top) * scale - t[j]));
                pack<N>(gh + row * cols + c) = a;
            }
    }
    return all;
}

template <bool WITH_GRADIENT>
__device__ real all_rows(const T* y_hat, const Y* y, const real* weights, real S, T* gh,
                         real* columns, int64 rows, int64 cols, int packed, int lanes) {
    if (lanes == 0)
        return packed ? wide_rows<PACK, WITH_GRADIENT>(y_hat, y, weights, S, gh, rows, cols)
                      : wide_rows<1, WITH_GRADIENT>(y_hat, y, weights, S, gh, rows, cols);
    if (cols <= NARROW * lanes)
        return held_rows<1, NARROW, WITH_GRADIENT>(y_hat, y, weights, S, gh, columns, rows, cols,
                                                   lanes);
    return held_rows<PACK, HELD, WITH_GRADIENT>(y_hat, y, weights, S, gh, columns, rows, cols,
                                                lanes);
}

// J ← J + Σ weights · cross-entropy of softmax(ŷ) and the smoothed y
GPUMLP_KERNEL(loss, THREADS)
(const T* y_hat, const Y* y, const real* weights, real* partial, unsigned* arrived, double* J,
 int64 rows, int64 cols, int packed, int lanes) {
    after_previous_launch();
    const real all = all_rows<false>(y_hat, y, weights, 1, 0, 0, rows, cols, packed, lanes);
    add_to_cost(all, partial, arrived, J);
}

// the same, and gh ← S ∇_ŷ L, db ← the column sums of gh if lanes > 0; steps > 0: the training step
// ends, too.  partial: a number for each block, then (blocks, cols).  Of several networks: see
// member(); then steps is 0.
GPUMLP_KERNEL(loss_gradient, THREADS)
(const T* y_hat, const Y* y, const real* weights, const double* scaling, T* gh, real* partial, T* db,
 unsigned* arrived, double* J, int64* position, double* costs, int64 steps, int64 rows, int64 cols,
 int64 apart, int packed, int lanes) {
    after_previous_launch();
    __shared__ real columns[MOST_LANES * HELD];
    const int64 entries = member() * rows * cols;
    y_hat += entries, gh += entries, y += member() * rows * (is_label(y) ? 1 : cols);
    weights += member() * rows, scaling += 4 * member(), db += member() * apart, J += member();
    real* const sums = partial + gridDim.y * gridDim.z + member() * gridDim.y * cols;
    unsigned* const counts = arrived + gridDim.z + member() * column_counts();
    partial += member() * gridDim.y, arrived += member();
    const real all = all_rows<true>(y_hat, y, weights, real(scaling[0]), gh, columns, rows, cols,
                                    packed, lanes);
    if (lanes > 0) {
        for (int c = thread(); c < cols; c += THREADS)
            sums[blockIdx.y * cols + c] = columns[c];
        add_columns(sums, db, counts, cols, (int)cols);
    }
    if (add_to_cost(all, partial, arrived, J) && steps > 0 && thread() == 0)
        end_step(position, J, costs, steps, 1);
}
