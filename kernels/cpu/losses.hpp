// The losses of a minibatch and their gradients.
//
// An entry E<real> is made from its parameters and has the functions of its CUDA expressions.
// Matrices are (m, n), row-major.
#pragma once

#include "activations.hpp"

namespace gpumlp {

// J ← J + Σ weights · share · value(ŷ, y), and gh ← its gradient if gh is given.
// y is (m, n), or labels (m).
template <class real, class Y> struct LossOf {
    const real* y_hat; const Y* y; const real* weights; double* J; real* gh; int64 m, n;
    double share; double* partial; const double* params;
};

template <class real> inline real target(const real* y, int64 i, int64 j, int64 n) {
    return y[i * n + j];
}
template <class real> inline real target(const int32_t* y, int64 i, int64 j, int64) {
    return y[i] == j ? real(1) : real(0);
}

template <template <class> class L, class real, class Y> void loss(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const LossOf<real, Y>*>(arguments);
    const L<real> l(p.params);
    const int64 each = piece_rows(p.n);
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        double sum = 0;
        for (int64 i = begin; i < end; ++i) {
            const real* const row = p.y_hat + i * p.n;
            const real weight = p.weights[i] * real(p.share);
            sum += double(sum_of<real>(p.n, [&](int64 j) {
                return times(weight, l.value(row[j], target<real>(p.y, i, j, p.n)));
            }));
            if (p.gh == nullptr) continue;
            real* const gh = p.gh + i * p.n;
            GPUMLP_LOOP
            for (int64 j = 0; j < p.n; ++j)
                gh[j] = times(weight, l.gradient(row[j], target<real>(p.y, i, j, p.n)));
        }
        p.partial[piece] = sum;
    });
    add_cost(p.partial, (p.m + each - 1) / each, p.J);
}

// Cross-entropy of softmax(ŷ) and the smoothed y, for logits ŷ.  params: the smoothing.
template <class real, class Y> void cross_entropy(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const LossOf<real, Y>*>(arguments);
    const real smoothing = real(p.params[0]), rest = smoothing / real(p.n);
    const int64 each = piece_rows(p.n), n = p.n;
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        double sum = 0;
        for (int64 i = begin; i < end; ++i) {
            const real* const x = p.y_hat + i * n;
            const real weight = p.weights[i];
            real* const gh = p.gh == nullptr ? nullptr : p.gh + i * n;
            const auto t = [&](int64 j) {
                return target<real>(p.y, i, j, n) * (real(1) - smoothing) + rest;
            };
            real top;
            const real total = exp_sum(x, n, gh, top), log_sum = log(total);
            real value = 0, mass = 0;
            for (int64 j = 0; j < n; ++j) {
                value += times(t(j), log_sum - (x[j] - top));
                mass += t(j);
            }
            sum += double(times(weight, value));
            if (gh == nullptr) continue;
            const real scale = mass / total;
            GPUMLP_LOOP
            for (int64 j = 0; j < n; ++j) gh[j] = times(weight, gh[j] * scale - t(j));
        }
        p.partial[piece] = sum;
    });
    add_cost(p.partial, (p.m + each - 1) / each, p.J);
}

}  // namespace gpumlp
