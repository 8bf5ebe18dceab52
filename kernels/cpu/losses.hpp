// The losses of a minibatch and their gradients.
//
// An entry E<real> is made from its parameters and has the functions of its CUDA expressions.
// Matrices are (m, n), row-major; ŷ and its gradient of the type T in which they are stored.
#pragma once

#include "activations.hpp"
#include "tiles.hpp"

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

// The loss of some entries of a matrix.  Rows may be short: the entries of several rows fill vectors.
template <class L, class T, class Y> struct SomeOfLoss {
    using real = Arithmetic<T>;
    enum { MANY = 8 * LANES };  // at a time, at most
    real weight[MANY], y[MANY], terms[MANY];

    // the sum of `count` entries from `first` on; their gradient is stored if gh is given
    double add(const LossOf<T, Y>& p, const L l, int64 first, int64 count) {
        const T* const y_hat = p.y_hat + first;
        int64 i = first / p.n, j = first % p.n;
        for (int64 k = 0; k < count; ++i, j = 0)
            for (const int64 end = k + least(p.n - j, count - k); k < end; ++k, ++j)
                weight[k] = p.weights[i] * real(p.share), y[k] = target<real>(p.y, i, j, p.n);
        for (int64 k = 0; k < count; ++k) terms[k] = l.value(y_hat[k], y[k]);
        const real sum = sum_of<real>(count, [&](int64 k) { return times(weight[k], terms[k]); });
        if (p.gh != nullptr) {  // in two loops: of one with more conditions, GCC makes no vectors
            for (int64 k = 0; k < count; ++k) terms[k] = l.gradient(y_hat[k], y[k]);
            T* const gh = p.gh + first;
            for (int64 k = 0; k < count; ++k) gh[k] = times(weight[k], terms[k]);
        }
        return double(sum);
    }
};

// Without J: sums over some rows are in `partial`.
template <template <class> class L, class T, class Y> void loss_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const LossOf<T, Y>*>(arguments);
    const L<Arithmetic<T>> l(p.params);
    SomeOfLoss<L<Arithmetic<T>>, T, Y> some;
    over_sums(p.m, part.i, part.i + part.m, [&](int64 begin, int64 end, int64 number) {
        double sum = 0;
        for (int64 first = begin * p.n; first < end * p.n; first += some.MANY)
            sum += some.add(p, l, first, least<int64>(some.MANY, end * p.n - first));
        p.partial[number] = sum;
    });
}

// J ← J + Σ of the sums.  What Y is changes nothing.
template <class T> void loss_end(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const LossOf<T, int32_t>*>(arguments);
    add_cost(p.partial, row_sums(p.m), p.J);
}

template <template <class> class L, class T, class Y> void loss(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const LossOf<T, Y>*>(arguments);
    over_rows(threads, p.m, p.n, loss_on_rows<L, T, Y>, arguments);
    loss_end<T>(arguments, threads);
}

// `times`, of vectors
template <class V> inline V times_of(V a, V b) { return a == 0 ? V{} : a * b; }

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
        const real mass = sum_of<real>(n, t), value = sum_of<real>(n, [&](int64 j) {
            return times(t(j), log_sum - (x[j] - top));
        });
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

// The same for at most LANES classes, which would not fill vectors: an entry of LANES rows does.
// x, t and e are (n, LANES).
template <class T, class Y, class real>
double cross_entropy_of_few(const LossOf<T, Y>& p, int64 begin, int64 end, real smoothing) {
    enum { WIDE = WIDTH<real>, VECTORS = LANES / WIDE };
    typedef Vector<real> V;
    const int64 n = p.n;
    const real rest = smoothing / real(n);
    double sum = 0;
    for (int64 first = begin; first < end; first += LANES) {
        const int64 rows = least<int64>(LANES, end - first);
        alignas(64) real x[LANES * LANES], t[LANES * LANES], e[LANES * LANES];
        alignas(64) real weight[LANES] = {}, label[LANES] = {}, total[LANES], log_sum[LANES];
        V top[VECTORS], mass[VECTORS];
        std::memset(x, 0, n * LANES * sizeof(real));
        for (int64 k = 0; k < rows; ++k) {
            const int64 i = first + k;
            weight[k] = p.weights[i];
            if constexpr (std::is_integral<Y>::value) label[k] = real(p.y[i]);
            for (int64 j = 0; j < n; ++j) {
                x[j * LANES + k] = p.y_hat[i * n + j];
                if constexpr (!std::is_integral<Y>::value) t[j * LANES + k] = p.y[i * n + j];
            }
        }
        const auto of = [](real* a, int64 j, int v) -> V& {
            return vector_at(a + j * LANES + v * WIDE);
        };
        for (int v = 0; v < VECTORS; ++v) {
            top[v] = of(x, 0, v), mass[v] = V{};
            for (int64 j = 1; j < n; ++j) {
                const V each = of(x, j, v), most = each > top[v] ? each : top[v];
                top[v] = each != each ? each : most;  // once NaN, it stays
            }
            for (int64 j = 0; j < n; ++j) {
                if constexpr (std::is_integral<Y>::value)
                    of(t, j, v) = of(label, 0, v) == real(j) ? V{} + 1 : V{};
                of(t, j, v) = of(t, j, v) * (real(1) - smoothing) + rest;
                mass[v] += of(t, j, v);
                of(x, j, v) -= top[v];
            }
        }
        for (int64 j = 0; j < n; ++j)
            for (int k = 0; k < LANES; ++k) e[j * LANES + k] = exp(x[j * LANES + k]);
        for (int v = 0; v < VECTORS; ++v) {
            of(total, 0, v) = V{};
            for (int64 j = 0; j < n; ++j) of(total, 0, v) += of(e, j, v);
        }
        for (int k = 0; k < LANES; ++k) log_sum[k] = log(total[k]);
        for (int v = 0; v < VECTORS; ++v) {
            V value = {};
            const V scale = mass[v] / of(total, 0, v);
            for (int64 j = 0; j < n; ++j) {
                value += times_of(of(t, j, v), of(log_sum, 0, v) - of(x, j, v));
                of(e, j, v) = times_of(of(weight, 0, v), of(e, j, v) * scale - of(t, j, v));
            }
            of(total, 0, v) = times_of(of(weight, 0, v), value);
        }
        for (real each : total) sum += double(each);
        if (p.gh == nullptr) continue;
        for (int64 k = 0; k < rows; ++k)
            for (int64 j = 0; j < n; ++j) p.gh[(first + k) * n + j] = e[j * LANES + k];
    }
    return sum;
}

// params: the smoothing
template <class T, class Y> void cross_entropy_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const LossOf<T, Y>*>(arguments);
    const auto smoothing = Arithmetic<T>(p.params[0]);
    over_sums(p.m, part.i, part.i + part.m, [&](int64 begin, int64 end, int64 number) {
        p.partial[number] = p.n <= LANES ? cross_entropy_of_few(p, begin, end, smoothing)
                                         : cross_entropy_of_rows(p, begin, end, smoothing);
    });
}

template <class T, class Y> void cross_entropy(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const LossOf<T, Y>*>(arguments);
    over_rows(threads, p.m, p.n, cross_entropy_on_rows<T, Y>, arguments);
    loss_end<T>(arguments, threads);
}

}  // namespace gpumlp
