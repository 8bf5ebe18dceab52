// The losses of a minibatch and their gradients.
//
// An entry E<real> is made from its parameters and has the functions of its CUDA expressions.
// Matrices are (m, n), row-major; ŷ and its gradient of the type T in which they are stored.
#pragma once

#include "activations.hpp"

namespace gpumlp {

// J ← J + Σ weights · share · value(ŷ, y), and gh ← its gradient if gh is given.
// y is (m, n), or labels (m).
template <class T, class Y> struct LossOf {
    const T* y_hat; const Y* y; const Arithmetic<T>* weights; double* J; T* gh; int64 m, n;
    double share; double* partial; const double* params;
};

template <class real> inline real target(const real* y, int64 i, int64 j, int64 n) {
    return y[i * n + j];
}
template <class real> inline real target(const int32_t* y, int64 i, int64 j, int64) {
    return y[i] == j ? real(1) : real(0);
}

template <template <class> class L, class T, class Y> void loss(const void* arguments, const Threads& threads) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const LossOf<T, Y>*>(arguments);
    const L<real> l(p.params);
    const int64 each = piece_rows(p.n);
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        double sum = 0;
        for (int64 i = begin; i < end; ++i) {
            const T* const row = p.y_hat + i * p.n;
            const real weight = p.weights[i] * real(p.share);
            sum += double(sum_of<real>(p.n, [&](int64 j) {
                return times(weight, l.value(row[j], target<real>(p.y, i, j, p.n)));
            }));
            if (p.gh == nullptr) continue;
            T* const gh = p.gh + i * p.n;
            GPUMLP_LOOP
            for (int64 j = 0; j < p.n; ++j)
                gh[j] = times(weight, l.gradient(row[j], target<real>(p.y, i, j, p.n)));
        }
        p.partial[piece] = sum;
    });
    add_cost(p.partial, (p.m + each - 1) / each, p.J);
}

// Cross-entropy of softmax(ŷ) and the smoothed y, for logits ŷ, of the rows [begin, end).  If gh is
// given, it is filled.
template <class T, class Y, class real>
double cross_entropy_of_rows(const LossOf<T, Y>& p, int64 begin, int64 end, real smoothing) {
    const int64 n = p.n;
    const real rest = smoothing / real(n);
    double sum = 0;
    for (int64 i = begin; i < end; ++i) {
        const T* const x = p.y_hat + i * n;
        const real weight = p.weights[i];
        T* const gh = p.gh == nullptr ? nullptr : p.gh + i * n;
        const auto t = [&](int64 j) {
            return target<real>(p.y, i, j, n) * (real(1) - smoothing) + rest;
        };
        real top, *e = nullptr;
        if constexpr (!IS_16_BIT<T>) e = gh;  // 16 bits would not keep the digits
        const real total = exp_sum(x, n, e, top), log_sum = log(total);
        real value = 0, mass = 0;
        for (int64 j = 0; j < n; ++j) {
            value += times(t(j), log_sum - (x[j] - top));
            mass += t(j);
        }
        sum += double(times(weight, value));
        if (gh == nullptr) continue;
        const real scale = mass / total;
        GPUMLP_LOOP
        for (int64 j = 0; j < n; ++j) {
            real power;
            if constexpr (IS_16_BIT<T>) power = exp(x[j] - top);
            else power = gh[j];
            gh[j] = times(weight, power * scale - t(j));
        }
    }
    return sum;
}

// The same for at most LANES classes, which would not fill vectors: a vector holds an entry of
// LANES rows.
template <class T, class Y, class real>
double cross_entropy_of_few(const LossOf<T, Y>& p, int64 begin, int64 end, real smoothing) {
    const int64 n = p.n;
    const real rest = smoothing / real(n);
    double sum = 0;
    for (int64 first = begin; first < end; first += LANES) {
        const int rows = int(least<int64>(LANES, end - first));  // beyond them, the last row again
        real x[LANES][LANES], t[LANES][LANES], e[LANES][LANES];
        real weight[LANES], top[LANES], total[LANES] = {}, log_sum[LANES], scale[LANES];
        real value[LANES] = {}, mass[LANES] = {};
        Y label[LANES];  // a comparison of vectors: nobody foresees where a branch on labels goes
        for (int k = 0; k < LANES; ++k) {
            const int64 i = first + (k < rows ? k : rows - 1);
            weight[k] = k < rows ? p.weights[i] : real(0);
            for (int64 j = 0; j < n; ++j) x[j][k] = p.y_hat[i * n + j];
            if constexpr (std::is_integral<Y>::value)
                label[k] = p.y[i];
            else
                for (int64 j = 0; j < n; ++j) t[j][k] = p.y[i * n + j];
        }
        for (int64 j = 0; j < n; ++j)
            for (int k = 0; k < LANES; ++k) {
                if constexpr (std::is_integral<Y>::value)
                    t[j][k] = label[k] == Y(j) ? real(1) : real(0);
                t[j][k] = t[j][k] * (real(1) - smoothing) + rest;
            }
        std::memcpy(top, x[0], sizeof top);
        for (int64 j = 1; j < n; ++j)
            for (int k = 0; k < LANES; ++k) {
                const real most = x[j][k] > top[k] ? x[j][k] : top[k];
                top[k] = x[j][k] != x[j][k] ? x[j][k] : most;  // once NaN, it stays
            }
        for (int64 j = 0; j < n; ++j)
            for (int k = 0; k < LANES; ++k) {
                x[j][k] -= top[k];
                e[j][k] = exp(x[j][k]);
                total[k] += e[j][k];
                mass[k] += t[j][k];
            }
        for (int k = 0; k < LANES; ++k) log_sum[k] = log(total[k]);
        for (int64 j = 0; j < n; ++j)
            for (int k = 0; k < LANES; ++k) value[k] += times(t[j][k], log_sum[k] - x[j][k]);
        for (int k = 0; k < LANES; ++k) sum += double(times(weight[k], value[k]));
        if (p.gh == nullptr) continue;
        for (int k = 0; k < LANES; ++k) scale[k] = mass[k] / total[k];
        for (int64 j = 0; j < n; ++j)
            for (int k = 0; k < LANES; ++k)
                e[j][k] = times(weight[k], e[j][k] * scale[k] - t[j][k]);
        for (int k = 0; k < rows; ++k)
            for (int64 j = 0; j < n; ++j) p.gh[(first + k) * n + j] = e[j][k];
    }
    return sum;
}

// params: the smoothing
template <class T, class Y> void cross_entropy(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const LossOf<T, Y>*>(arguments);
    const auto smoothing = Arithmetic<T>(p.params[0]);
    const int64 each = piece_rows(p.n);
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        p.partial[piece] = p.n <= LANES ? cross_entropy_of_few(p, begin, end, smoothing)
                                        : cross_entropy_of_rows(p, begin, end, smoothing);
    });
    add_cost(p.partial, (p.m + each - 1) / each, p.J);
}

}  // namespace gpumlp
