// The first and the last launch of a training step.  Everything that differs between steps is in
// tables on the device, with one row for each step.  So the launches are the same in every step and
// can be recorded once.
#include "common.cuh"
#include "sums.cuh"
#include "cost.cuh"
#include "gather.cuh"

// For the step t = position[0]: index ← `rows` entries from order[t size] on; control and factors ←
// row t of controls, (steps, numbers + 2); J, (shards,), ← 0.  By threads 0, 1, … of `threads`.
__device__ inline void read_tables(int64 t, const int64* order, const double* controls,
                                   int64* index, double* control, real* factors, double* J,
                                   int64 size, int64 rows, int64 numbers, int64 shards,
                                   int64 number, int64 threads) {
    for (int64 i = number; i < rows; i += threads) index[i] = order[t * size + i];
    const double* const row = controls + t * (numbers + 2);
    for (int64 i = number; i < numbers; i += threads) control[i] = row[i];
    for (int64 i = number; i < shards; i += threads) J[i] = 0;
    if (number >= 1) return;
    factors[0] = real(row[numbers]);
    factors[1] = real(row[numbers + 1]);
}

GPUMLP_KERNEL(begin, THREADS)
(const int64* position, const int64* order, const double* controls, int64* index, double* control,
 real* factors, double* J, int64 size, int64 rows, int64 numbers, int64 shards) {
    after_previous_launch();
    read_tables(position[0], order, controls, index, control, factors, J, size, rows, numbers,
                shards, first(), stride());
}

// `lanes` neighbouring threads of a block gather a row, from the block's column of blocks on
template <class S>
__device__ void gather_tile(const S* source, const int64* index, S* out, int64 rows, int64 cols,
                            int packed, int64 tile, int lanes) {
    enum { N = 16 / sizeof(S) };
    const int64 col = tile * lanes + thread() % lanes;
    const int high = THREADS / lanes;
    const int64 row = blockIdx.y * (int64)high + thread() / lanes, stride = gridDim.y * (int64)high;
    if (packed) gather_rows<N>(source, index, out, rows, cols, col * N, row, stride);
    else gather_rows<1>(source, index, out, rows, cols, col, row, stride);
}

// `begin`, and rows of x and y: x[row] ← all_x[index[row]], y in the same way, and the weights of
// the examples in the mean, if they have some: `weighted` is the number of networks, which each have a
// mean.  The first x_tiles columns of blocks gather x, all but one of the others gather y, and the
// last one does the rest.
GPUMLP_KERNEL(begin_minibatch, THREADS)
(const int64* position, const int64* order, const double* controls, int64* index, double* control,
 real* factors, double* J, const X* all_x, X* x, const Y* all_y, Y* y, const real* all_weights,
 real* weights, int64 size, int64 rows, int64 numbers, int64 shards, int64 x_cols, int64 y_cols, int x_packed,
 int y_packed, int x_tiles, int x_lanes, int y_lanes, int weighted) {
    after_previous_launch();
    const int64 t = position[0], tile = blockIdx.x;
    const int64* const own = order + t * size;  // what index will be
    if (tile < x_tiles) {
        gather_tile(all_x, own, x, rows, x_cols, x_packed, tile, x_lanes);
    } else if (tile < gridDim.x - 1) {
        gather_tile(all_y, own, y, rows, y_cols, y_packed, tile - x_tiles, y_lanes);
    } else {
        read_tables(t, order, controls, index, control, factors, J, size, rows, numbers, shards,
                    blockIdx.y * (int64)THREADS + thread(), gridDim.y * (int64)THREADS);
        for (int64 k = blockIdx.y; k < weighted; k += gridDim.y) {
            const int64 m = rows / weighted;
            shares(all_weights, own + k * m, weights + k * m, m);
        }
    }
}

// costs[t] ← J, (shards,); then t ← t + 1, or t ← 0 after the last step
GPUMLP_KERNEL(end, THREADS)
(int64* position, const double* J, double* costs, int64 steps, int64 shards) {
    after_previous_launch();
    if (first() < 1) end_step(position, J, costs, steps, shards);
}
