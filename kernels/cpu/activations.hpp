// The forward and the backward pass through an activation.
//
// An entry E<real> is made from its parameters and has the functions of its CUDA expressions.
// Matrices are (m, n), row-major, of the type T in which they are stored.
#pragma once

#include "tiles.hpp"

namespace gpumlp {

// z ← z + b, h ← f(z).  z may be h, and then only h is kept.
template <class T> struct BiasActivation {
    T* z; const T* b; T* h; int64 m, n; const double* params;
};

template <template <class> class F, class T>
__attribute__((noinline)) void bias_activation_part(const void* arguments, const Part& part) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const BiasActivation<T>*>(arguments);
    const F<real> f(p.params);
    const T* const b = p.b + part.j;
    for (int64 i = part.i; i < part.i + part.m; ++i) {
        T *z = p.z + i * p.n + part.j, *h = p.h + i * p.n + part.j;
        if (z == h) {
            GPUMLP_LOOP
            for (int64 j = 0; j < part.n; ++j) h[j] = f.f(h[j] + b[j]);
        } else {
            GPUMLP_LOOP
            for (int64 j = 0; j < part.n; ++j) {
                const real sum = z[j] + b[j];
                z[j] = sum;
                h[j] = f.f(sum);
            }
        }
    }
}

template <template <class> class F, class T> void bias_activation_on_rows(const void* arguments, const Part& part) {
    bias_activation_part<F, T>(arguments, part);
}

template <template <class> class F, class T> void bias_activation(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const BiasActivation<T>*>(arguments);
    over_rows(threads, p.m, p.n, bias_activation_part<F, T>, arguments);
}

// h ← f(z)
template <class T> struct ActivationOf { const T* z; T* h; int64 m, n; const double* params; };

template <template <class> class F, class T> void activation_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const ActivationOf<T>*>(arguments);
    const F<Arithmetic<T>> f(p.params);
    GPUMLP_LOOP
    for (int64 i = part.i * p.n; i < (part.i + part.m) * p.n; ++i) p.h[i] = f.f(p.z[i]);
}

template <template <class> class F, class T> void activation(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationOf<T>*>(arguments);
    over_rows(threads, p.m, p.n, activation_on_rows<F, T>, arguments);
}

// gz ← gh ⊙ f'(z), db ← column sums of gz.  gz may be gh.
template <class T> struct ActivationGradient {
    const T *gh, *z, *h; T *gz, *db; int64 m, n; Arithmetic<T>* partial; const double* params;
};

// db ← Σ of some sums (count, n), which are overwritten; `row`: from one to the next
template <class T> void add_up(Arithmetic<T>* partial, int64 count, int64 n, T* db, int64 row) {
    for (int64 i = 1; i < count; ++i) {
        GPUMLP_LOOP
        for (int64 j = 0; j < n; ++j) partial[j] += partial[i * row + j];
    }
    convert(partial, db, n);
}

// the gradient of rows that would not fill vectors: all entries at once
template <class F, class T>
void gradient_of_short_rows(const ActivationGradient<T>& p, const F& f, int64 begin, int64 end,
                            Arithmetic<T>* sums) {
    const T *gh = p.gh + begin * p.n, *z = p.z + begin * p.n, *h = p.h + begin * p.n;
    T* const gz = p.gz + begin * p.n;
    GPUMLP_LOOP
    for (int64 k = 0; k < (end - begin) * p.n; ++k) gz[k] = gh[k] * f.df(z[k], h[k]);
    for (int64 j = 0; j < p.n; ++j)
        sums[j] = sum_of<T>(end - begin, [&](int64 i) { return gz[i * p.n + j]; });
}

// the gradient of COUNT neighbouring columns, whose sums stay in registers
template <int COUNT, class F, class T>
inline void gradient_of_columns(const ActivationGradient<T>& p, const F& f, int64 begin, int64 end,
                                int64 column, Arithmetic<T>* sums) {
    Arithmetic<T> sum[COUNT] = {};
    for (int64 i = begin; i < end; ++i) {
        const int64 at = i * p.n + column;
        const T *gh = p.gh + at, *z = p.z + at, *h = p.h + at;
        T* const gz = p.gz + at;
        GPUMLP_SHORT_LOOP
        for (int j = 0; j < COUNT; ++j) {
            const Arithmetic<T> g = gh[j] * f.df(z[j], h[j]);
            gz[j] = g;
            sum[j] += g;
        }
    }
    std::memcpy(sums, sum, sizeof sum);
}

// without db: sums over some rows are in `partial`
template <template <class> class F, class T>
__attribute__((noinline)) void activation_gradient_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const ActivationGradient<T>*>(arguments);
    const F<Arithmetic<T>> f(p.params);
    Arithmetic<T>* const partial = p.partial + part.j;
    over_sums(p.m, part.i, part.i + part.m, [&](int64 begin, int64 end, int64 number) {
        Arithmetic<T>* const sums = partial + number * p.n;
        if constexpr (!IS_16_BIT<T>)
            if (p.n < LANES && part.n == p.n) return gradient_of_short_rows(p, f, begin, end, sums);
        int64 j = 0;
        for (; j + LANES <= part.n; j += LANES)
            gradient_of_columns<LANES>(p, f, begin, end, part.j + j, sums + j);
        for (; j + LANES / 2 <= part.n; j += LANES / 2)
            gradient_of_columns<LANES / 2>(p, f, begin, end, part.j + j, sums + j);
        for (; j < part.n; ++j) gradient_of_columns<1>(p, f, begin, end, part.j + j, sums + j);
    });
}

// of whole columns
template <template <class> class F, class T>
void activation_gradient_part(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const ActivationGradient<T>*>(arguments);
    activation_gradient_on_rows<F, T>(arguments, part);
    add_up(p.partial + part.j, row_sums(p.m), part.n, p.db + part.j, p.n);
}

// db, when all rows are done
template <class T> void activation_gradient_end(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const ActivationGradient<T>*>(arguments);
    add_up(p.partial, row_sums(p.m), p.n, p.db, p.n);
}

template <template <class> class F, class T> void activation_gradient(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationGradient<T>*>(arguments);
    over_rows(threads, p.m, p.n, activation_gradient_on_rows<F, T>, arguments);
    activation_gradient_end<T>(arguments, threads);
}

// ---- softmax, row by row

// a or b, whichever is larger; NaN if one of them is.  Of numbers or vectors.
template <class V> inline V larger(V a, V b) {
    const V most = a > b ? a : b;
    return a != a ? a : most;
}

// lanes ← LANES entries; of fewer, the first one is in the other lanes, too
template <class T, class real> inline void fill_lanes(const T* x, int64 count, real* lanes) {
    if (count < LANES) {
        for (int k = 0; k < LANES; ++k) lanes[k] = x[k < count ? k : 0];
    } else if constexpr (std::is_same<T, real>::value) {
        std::memcpy(lanes, x, LANES * sizeof(real));
    } else {
        for (int k = 0; k < LANES; ++k) lanes[k] = x[k];
    }
}

// max and Σ exp(x − max) of a row; e ← exp(x − max) if it is given
template <class T, class real> inline real exp_sum(const T* x, int64 n, real* e, real& top) {
    enum { WIDE = WIDTH<real>, VECTORS = LANES / WIDE };
    typedef Vector<real> V;
    real part[LANES], all[LANES];
    V most[VECTORS], sum[VECTORS] = {};
    for (V& each : most) each = V{} + real(x[0]);
    for (int64 j = 0; j < n; j += LANES) {
        fill_lanes(x + j, n - j, part);
        for (int v = 0; v < VECTORS; ++v) most[v] = larger<V>(vector_at(part + v * WIDE), most[v]);
    }
    std::memcpy(all, most, sizeof all);
    top = all[0];
    for (real each : all) top = larger(each, top);
    for (int64 j = 0; j < n; j += LANES) {
        const int count = int(least<int64>(LANES, n - j));
        fill_lanes(x + j, count, part);
        for (int k = 0; k < LANES; ++k) part[k] = exp(part[k] - top);
        for (int k = count; k < LANES; ++k) part[k] = 0;
        for (int v = 0; v < VECTORS; ++v) sum[v] += vector_at(part + v * WIDE);
        if (e) std::memcpy(e + j, part, count * sizeof(real));
    }
    std::memcpy(all, sum, sizeof all);
    return add_lanes(all);
}

// z ← z + b, h ← softmax(z)
template <class T> void softmax_row(const T* z, T* h, int64 n) {
    Arithmetic<T> top;
    if constexpr (IS_16_BIT<T>) {
        const float sum = exp_sum<T, float>(z, n, nullptr, top);
        for (int64 j = 0; j < n; ++j) h[j] = exp(z[j] - top) / sum;  // with the digits of float
    } else {
        const T sum = exp_sum(z, n, h, top);
        for (int64 j = 0; j < n; ++j) h[j] /= sum;
    }
}

template <class T> void bias_softmax_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const BiasActivation<T>*>(arguments);
    for (int64 i = part.i; i < part.i + part.m; ++i) {
        T* const z = p.z + i * p.n;
        for (int64 j = 0; j < p.n; ++j) z[j] = z[j] + p.b[j];
        softmax_row(z, p.h + i * p.n, p.n);
    }
}

template <class T> void bias_softmax(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const BiasActivation<T>*>(arguments);
    over_rows(threads, p.m, p.n, bias_softmax_on_rows<T>, arguments);
}

template <class T> void softmax_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const ActivationOf<T>*>(arguments);
    for (int64 i = part.i; i < part.i + part.m; ++i) softmax_row(p.z + i * p.n, p.h + i * p.n, p.n);
}

template <class T> void softmax(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationOf<T>*>(arguments);
    over_rows(threads, p.m, p.n, softmax_on_rows<T>, arguments);
}

// gz ← h ⊙ (gh − gh·h), and sums of its columns over some rows
template <class T> void softmax_gradient_on_rows(const void* arguments, const Part& part) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const ActivationGradient<T>*>(arguments);
    over_sums(p.m, part.i, part.i + part.m, [&](int64 begin, int64 end, int64 number) {
        real* const sum = p.partial + number * p.n;
        std::memset(sum, 0, p.n * sizeof(real));
        for (int64 i = begin; i < end; ++i) {
            const T *gh = p.gh + i * p.n, *h = p.h + i * p.n;
            T* const gz = p.gz + i * p.n;
            const real dot = sum_of<real>(p.n, [&](int64 j) { return gh[j] * h[j]; });
            for (int64 j = 0; j < p.n; ++j) {
                const real g = h[j] * (gh[j] - dot);
                gz[j] = g;
                sum[j] += g;
            }
        }
    });
}

template <class T> void softmax_gradient(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationGradient<T>*>(arguments);
    over_rows(threads, p.m, p.n, softmax_gradient_on_rows<T>, arguments);
    activation_gradient_end<T>(arguments, threads);
}

}  // namespace gpumlp
