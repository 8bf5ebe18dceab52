// What the last block of a launch adds to J, and the end of a training step.
#pragma once

// costs[t] ← J, (shards,); then t ← t + 1, or t ← 0 after the last step
__device__ inline void end_step(int64* position, const double* J, double* costs, int64 steps,
                                int64 shards) {
    const int64 t = position[0];
    for (int64 i = 0; i < shards; ++i) costs[t * shards + i] = J[i];
    position[0] = t + 1 < steps ? t + 1 : 0;
}

// J ← J + Σ x over all threads of the launch.  True in the last block.
__device__ inline bool add_to_cost(real x, real* partial, unsigned* arrived, double* J) {
    double sum;
    if (!grid_sum(x, partial, arrived, sum)) return false;
    if (thread() == 0) J[0] += sum;
    return true;
}
