// Sums over all blocks of a launch: each block writes its part, and the block that is the last to do
// so adds the parts in a fixed order.  So the result does not depend on which block that is.
#pragma once

// whether this block is the last of `blocks` that arrive here.  It sees what the others have written
// before.  The count returns to 0 for the next launch.
__device__ inline bool last_block(unsigned* arrived, unsigned blocks) {
    __shared__ unsigned before;
    __syncthreads();  // all threads have written
    if (thread() == 0) {
        __threadfence();
        before = atomicInc(arrived, blocks - 1);
        __threadfence();
    }
    __syncthreads();
    return before == blocks - 1;
}

// Σ over all threads of the launch, in `sum` of each thread of the last block, for which it is true
__device__ inline bool grid_sum(real x, real* partial, unsigned* arrived, double& sum) {
    const unsigned blocks = gridDim.x * gridDim.y;
    x = block_sum(x);
    if (thread() == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = x;
    if (!last_block(arrived, blocks)) return false;
    double all = 0;
    for (unsigned i = thread(); i < blocks; i += THREADS) all += double(partial[i]);
    sum = block_sum(all);
    return true;
}

// the counts in `arrived` that column_sums needs
__device__ inline int64 column_counts() { return gridDim.x * (int64)(gridDim.y / 16 + 2); }

// The mean, the variance and the number of some numbers of a column; 0 of none.
struct Moments {
    real mean, variance, count;

    // join those of others: Chan, Golub & LeVeque (1979)
    __device__ void operator+=(const Moments& other) {
        if (other.count == real(0)) return;
        count += other.count;
        join(other.mean, other.variance, other.count / count);
    }
    // the same for a count that is computed elsewhere; share: that of the others in all
    __device__ void join(real other, real other_variance, real share) {
        const real apart = other - mean;
        mean += share * apart;
        variance += share * (other_variance - variance + (real(1) - share) * apart * apart);
    }
};

// In what follows, V is what is added up: real, or Moments.

// out[c] ← Σ over splits of partial[split * stride + c], for the first `width` columns, in one block.
// out may be the first split.
template <class V, class O>
__device__ void add_splits(const V* partial, O* out, int splits, int64 stride, int width) {
    enum { ACROSS = 32, LANES = THREADS / ACROSS };
    __shared__ V sums[THREADS];
    const int column = thread() % ACROSS, lane = thread() / ACROSS;
    for (int start = 0; start < width; start += ACROSS) {
        const int c = start + column;
        V sum = {};
        for (int split = lane; split < splits && c < width; split += LANES)
            sum += partial[split * stride + c];
        __syncthreads();  // all threads have read the sums of an earlier round
        sums[thread()] = sum;
        __syncthreads();
        if (lane > 0 || c >= width) continue;
        for (int i = 1; i < LANES; ++i) sum += sums[i * ACROSS + column];
        out[c] = O(sum);
    }
}

// out ← Σ over the rows of partial, (gridDim.y, cols), for the first `width` columns.  Each block has
// written its row.  GROUP blocks add their rows to that of the first, and then one block adds those:
// a block that read all rows would take longer than the rest of the launch.
// arrived: a count for each group, and one for the groups.  Returns whether this is the block that
// has written out.
template <class V, class O>
__device__ bool add_columns(V* partial, O* out, unsigned* arrived, int64 cols, int width) {
    enum { GROUP = 16 };
    const int splits = gridDim.y, groups = (splits + GROUP - 1) / GROUP, own = blockIdx.y / GROUP;
    const int left = splits - own * GROUP, members = left < GROUP ? left : GROUP;
    if (!last_block(arrived + own, members)) return false;
    V* const rows = partial + own * GROUP * cols;
    if (groups == 1) {
        add_splits(rows, out, members, cols, width);
        return true;
    }
    add_splits(rows, rows, members, cols, width);
    if (!last_block(arrived + groups, groups)) return false;
    add_splits(partial, out, groups, GROUP * cols, width);
    return true;
}

// The same for rows of any width that each block has written alone: a thread adds whole columns.
__device__ inline void add_rows(real* partial, T* out, unsigned* arrived, int64 width) {
    enum { GROUP = 16 };
    const int splits = gridDim.y, groups = (splits + GROUP - 1) / GROUP, own = blockIdx.y / GROUP;
    const int left = splits - own * GROUP, members = left < GROUP ? left : GROUP;
    if (!last_block(arrived + own, members)) return;
    real* const rows = partial + own * GROUP * width;
    for (int64 c = thread(); c < width; c += THREADS) {
        real sum = rows[c];
#pragma unroll 4
        for (int i = 1; i < members; ++i) sum += rows[i * width + c];
        if (groups == 1) out[c] = T(sum);
        else rows[c] = sum;
    }
    if (groups == 1 || !last_block(arrived + groups, groups)) return;
    for (int64 c = thread(); c < width; c += THREADS) {
        real sum = partial[c];
#pragma unroll 4
        for (int i = 1; i < groups; ++i) sum += partial[i * GROUP * width + c];
        out[c] = T(sum);
    }
}

// columns ← the sums over the block of those of each thread, K, in a fixed order.  `lanes` threads,
// a power of two, share the columns, of which each has N neighbouring ones at a time.
template <int N, int K>
__device__ void sum_columns(real* sums, real* columns, int lanes) {
    const int lane = thread() % lanes, together = lanes < 32 ? 32 : lanes;
    for (int other = lanes; other < 32; other *= 2)
        for (int k = 0; k < K; ++k) sums[k] += __shfl_xor_sync(ALL_LANES, sums[k], other);
    for (int turn = 0; turn < THREADS / together; ++turn) {
        if (thread() / together == turn && thread() % together < lanes)
            for (int k = 0; k < K; ++k) {
                const int c = k / N * N * lanes + lane * N + k % N;
                columns[c] = sums[k] + (turn > 0 ? columns[c] : real(0));
            }
        __syncthreads();
    }
}

// shared memory for N numbers of each thread, one for all types of results
template <int N, class V> __device__ inline V* of_threads() {
    __shared__ V sums[THREADS * N];
    return sums;
}

// out ← the sums of (gridDim.y blockDim.y rows, cols): sum[j] is that of the thread's rows in its
// N columns.  partial: (gridDim.y, cols); arrived: a count for each group of 16 blocks of a column of
// blocks, and one more.  out may be the first row of partial.  Returns whether this is the block that
// has written the sums of its columns.
template <int N, class V, class O>
__device__ bool column_sums(const V* sum, V* partial, O* out, unsigned* arrived, int64 cols) {
    V* const sums = of_threads<N, V>();
    const int width = blockDim.x * N;
    const int64 start = blockIdx.x * (int64)width;
    for (int j = 0; j < N; ++j) sums[threadIdx.y * width + threadIdx.x * N + j] = sum[j];
    __syncthreads();
    for (int c = thread(); c < width && start + c < cols; c += THREADS) {
        V total = {};
        for (int y = 0; y < (int)blockDim.y; ++y) total += sums[y * width + c];
        if (gridDim.y == 1) out[start + c] = O(total);
        else partial[blockIdx.y * cols + start + c] = total;
    }
    if (gridDim.y == 1) return true;
    const int64 left = cols - start;
    return add_columns(partial + start, out + start, arrived + blockIdx.x * (gridDim.y / 16 + 2),
                       cols, left < width ? int(left) : width);
}
