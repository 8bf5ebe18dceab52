// The first and the last launch of a training step.  Everything that differs between steps is in
// tables on the device, with one row for each step.  So the launches are the same in every step and
// can be recorded once.
#include "common.cuh"

// For the step t = position[0]: index ← `rows` entries from order[t size] on; control and factors ←
// row t of controls, (steps, numbers + 2); J ← 0.
GPUMLP_KERNEL(begin, THREADS)
(const int64* position, const int64* order, const double* controls, int64* index, double* control,
 real* factors, double* J, int64 size, int64 rows, int64 numbers) {
    const int64 t = position[0];
    for (int64 i = first(); i < rows; i += stride()) index[i] = order[t * size + i];
    const double* const row = controls + t * (numbers + 2);
    for (int64 i = first(); i < numbers; i += stride()) control[i] = row[i];
    if (first() >= 1) return;
    factors[0] = real(row[numbers]);
    factors[1] = real(row[numbers + 1]);
    J[0] = 0;
}

// costs[t] ← J; then t ← t + 1, or t ← 0 after the last step
GPUMLP_KERNEL(end, THREADS)
(int64* position, const double* J, double* costs, int64 steps) {
    if (first() >= 1) return;
    const int64 t = position[0];
    costs[t] = J[0];
    position[0] = t + 1 < steps ? t + 1 : 0;
}
