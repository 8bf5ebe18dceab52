// What kernels of a stage of columns share.
//
// The entry supplies the functions of stage.cu, with means over columns in place of rows, the number
// MEANS, SLOPES and PARAMETERS, and
//     UNBIASED     a bit for each mean whose running average is that of an estimate without bias
//     momentum     the share of a minibatch's means in their running averages
#pragma once

#undef GPUMLP_RESIDENT
#define GPUMLP_RESIDENT 2  // 128 registers: a thread has the sums, means and parameters of PACK columns

// COUNT numbers of each of N neighbouring columns, from rows that are `apart`
template <int N, int COUNT, class S> struct OfColumns {
    Pack<N, S> row[COUNT + 1];

    __device__ OfColumns(const S* first, int64 apart, bool inside) : row() {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (inside) row[i] = pack<N>(first + i * apart);
    }
    __device__ void at(int j, real* own) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) own[i] = real(row[i].at[j]);
    }
};

// running ← itself + momentum (s − itself), of the mean number i over `of` rows
__device__ void average(int i, real s, real& running, real of) {
    const real unbiased = UNBIASED >> i & 1 ? of / (of - real(1)) : real(1);
    running = (real(1) - momentum) * running + momentum * unbiased * s;
}
