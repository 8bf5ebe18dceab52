// Norms over the columns of a minibatch: rows (m, n), row-major, of the type T in which they are stored.
//
// The means s and t have rows of `wide` numbers, of which n are used; `of` is the number of rows of
// the whole minibatch.  Pieces of rows have sums of their own, which are added in order.
#pragma once

#include <type_traits>

#include "blocks.hpp"

namespace gpumlp {

// COUNT numbers of one column
template <int COUNT, class real> struct OfColumn {
    real at[COUNT + 1];

    inline OfColumn(const real* column, int64 wide) {
        for (int i = 0; i < COUNT; ++i) at[i] = column[i * wide];
    }
};

// f(R, i) for R rows from i on: in fours, and the rest one by one.  What depends on a column alone, such
// as 1/σ, is computed once for R rows, and its sums are read and written once.  f makes the entry anew,
// so that the compiler sees that no store changes it.
template <class F> void in_fours(int64 begin, int64 end, const F& f) {
    for (; begin + 4 <= end; begin += 4) f(std::integral_constant<int, 4>(), begin);
    for (; begin < end; ++begin) f(std::integral_constant<int, 1>(), begin);
}

// partial ← the sums of the pieces (pieces, n), in its first row
template <class real> void add_pieces(real* partial, int64 pieces, int64 n) {
    for (int64 i = 1; i < pieces; ++i) {
        GPUMLP_LOOP
        for (int64 j = 0; j < n; ++j) partial[j] += partial[i * n + j];
    }
}

// mean ← the sum over the rows of what s[which] is the mean of, / of; s: the means before
template <class T> struct ColumnMean {
    const T* x; const Arithmetic<T>* s; Arithmetic<T>* mean; int64 m, n, wide, which, of;
    Arithmetic<T>* partial; const double* params;
};

template <int I, template <class> class F, class T>
void column_mean_of(const ColumnMean<T>& p, const Threads& threads) {
    using real = Arithmetic<T>;
    if constexpr (I < F<real>::MEANS) {
        if (p.which != I) return column_mean_of<I + 1, F>(p, threads);
        const int64 n = p.n, each = piece_rows(n);
        over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
            real* const sum = p.partial + piece * n;
            std::memset(sum, 0, n * sizeof(real));
            in_fours(begin, end, [&](auto rows, int64 i) {
                const F<real> f(p.params);
                const T* const x = p.x + i * n;
                GPUMLP_LOOP
                for (int64 j = 0; j < n; ++j) {
                    const OfColumn<I, real> s(p.s + j, p.wide);
                    for (int r = 0; r < rows; ++r) sum[j] += f.template row_mean<I>(real(x[r * n + j]), s.at);
                }
            });
        });
        add_pieces(p.partial, (p.m + each - 1) / each, n);
        for (int64 j = 0; j < n; ++j) p.mean[j] = p.partial[j] / real(p.of);
    }
}

template <template <class> class F, class T> void column_mean(const void* arguments, const Threads& threads) {
    column_mean_of<0, F>(*static_cast<const ColumnMean<T>*>(arguments), threads);
}

// moments (3, wide) ← the mean, the variance and the number of the rows of each column
template <class T> struct ColumnMoments {
    const T* x; Arithmetic<T>* moments; int64 m, n, wide; Arithmetic<T>* partial; const double* params;
};

// mean, variance ← those of some rows and of others, whose share of all rows is `share`
template <class real>
inline void join_moments(real& mean, real& variance, real other, real other_variance, real share) {
    const real apart = other - mean;
    mean += share * apart;
    variance += share * (other_variance - variance + (1 - share) * apart * apart);
}

// From all rows the first one is subtracted, so that the digits that all have in common are not lost.
template <template <class> class, class T> void column_moments(const void* arguments, const Threads& threads) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const ColumnMoments<T>*>(arguments);
    const int64 n = p.n, each = piece_rows(n);
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        real *const mean = p.partial + 2 * piece * n, *const variance = mean + n;
        std::memset(mean, 0, 2 * n * sizeof(real));
        in_fours(begin, end, [&](auto rows, int64 i) {
            constexpr int R = rows;
            const T* const x = p.x + i * n;
            const real share = real(R) / real(i - begin + R);
            GPUMLP_LOOP
            for (int64 j = 0; j < n; ++j) {
                real apart[R], own = 0, squares = 0;
                for (int r = 0; r < R; ++r) own += apart[r] = real(x[r * n + j]) - real(p.x[j]);
                own *= real(1) / R;
                for (int r = 0; r < R; ++r) squares += (apart[r] - own) * (apart[r] - own);
                join_moments(mean[j], variance[j], own, squares * (real(1) / R), share);
            }
        });
    });
    real *const mean = p.partial, *const variance = mean + n;
    for (int64 i = 1; i * each < p.m; ++i) {
        const int64 before = i * each, own = p.m - before < each ? p.m - before : each;
        const real share = real(own) / real(before + own), *const other = mean + 2 * i * n;
        GPUMLP_LOOP
        for (int64 j = 0; j < n; ++j) join_moments(mean[j], variance[j], other[j], other[n + j], share);
    }
    for (int64 j = 0; j < n; ++j) {
        p.moments[j] = mean[j] + real(p.x[j]);
        p.moments[p.wide + j] = variance[j];
        p.moments[2 * p.wide + j] = real(p.m);
    }
}

// y ← the stage of x for the means s
template <class T> struct Columns {
    const T *x, *phi; const Arithmetic<T>* s; T* y; int64 m, n, wide; const double* params;
};

template <template <class> class F, class T> void columns_on_rows(const void* arguments, const Part& part) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const Columns<T>*>(arguments);
    const F<real> f(p.params);
    for (int64 i = part.i; i < part.i + part.m; ++i) {  // in fours, large arrays took 1.4 times as long
        const T* const x = p.x + i * p.n;
        T* const y = p.y + i * p.n;
        GPUMLP_LOOP
        for (int64 j = 0; j < p.n; ++j) {
            const OfColumn<F<real>::MEANS, real> s(p.s + j, p.wide);
            const Column<F<real>, real> own(p.phi + j, p.n);
            y[j] = f.row_y(real(x[j]), s.at, own.phi);
        }
    }
}

template <template <class> class F, class T> void columns(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Columns<T>*>(arguments);
    over_rows(threads, p.m, p.n, columns_on_rows<F, T>, arguments);
}

// running ← running + momentum (s − running), (MEANS, n)
template <class T> struct RunningMean {
    const Arithmetic<T>* s; Arithmetic<T>* running; int64 n, wide, of; const double* params;
};

template <template <class> class F, class T> void running_mean(const void* arguments, const Threads&) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const RunningMean<T>*>(arguments);
    const F<real> f(p.params);
    for (int i = 0; i < F<real>::MEANS; ++i) {
        const real biased = F<real>::UNBIASED >> i & 1 ? real(p.of) / real(p.of - 1) : real(1);
        real* const running = p.running + i * p.n;
        for (int64 j = 0; j < p.n; ++j)
            running[j] = (1 - f.momentum) * running[j] + f.momentum * biased * p.s[i * p.wide + j];
    }
}

// sum[I], sum[I + 1], … ← themselves + what an entry adds: to the slopes, and then to ∇φ
template <int I, class F, class real>
inline void add_slopes(const F& f, real x, real gy, const real* s, const real* phi, real* sum) {
    if constexpr (I < F::SLOPES) sum[I] += f.template row_slope<I>(x, gy, s, phi);
    else if constexpr (I < F::SLOPES + F::PARAMETERS)
        sum[I] += f.template row_dphi<I - F::SLOPES>(x, gy, s, phi);
    if constexpr (I + 1 < F::SLOPES + F::PARAMETERS) add_slopes<I + 1>(f, x, gy, s, phi, sum);
}

// t ← the sums of the slopes / of, if t is given, and ∇φ
template <class T> struct ColumnSlopes {
    const T *x, *phi, *gy; const Arithmetic<T>* s; Arithmetic<T>* t; T* dphi; int64 m, n, wide, of;
    Arithmetic<T>* partial; const double* params;
};

template <template <class> class F, class T> void column_slopes(const void* arguments, const Threads& threads) {
    using real = Arithmetic<T>;
    enum { SLOPES = F<real>::SLOPES, PARAMETERS = F<real>::PARAMETERS };
    const auto& p = *static_cast<const ColumnSlopes<T>*>(arguments);
    const int64 n = p.n, each = piece_rows(n), width = (SLOPES + PARAMETERS) * n;
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        real* const sum = p.partial + piece * width;
        if (width) std::memset(sum, 0, width * sizeof(real));
        in_fours(begin, end, [&](auto rows, int64 i) {
            const F<real> f(p.params);
            const T *x = p.x + i * n, *gy = p.gy + i * n;
            GPUMLP_LOOP
            for (int64 j = 0; j < n; ++j) {
                const OfColumn<F<real>::MEANS, real> s(p.s + j, p.wide);
                const Column<F<real>, real> own(p.phi + j, n);
                real more[SLOPES + PARAMETERS + 1] = {};
                for (int r = 0; r < rows; ++r)
                    add_slopes<0>(f, real(x[r * n + j]), real(gy[r * n + j]), s.at, own.phi, more);
                for (int l = 0; l < SLOPES + PARAMETERS; ++l) sum[l * n + j] += more[l];
            }
        });
    });
    add_pieces(p.partial, (p.m + each - 1) / each, width);
    for (int l = 0; p.t && l < SLOPES; ++l)
        for (int64 j = 0; j < n; ++j) p.t[l * p.wide + j] = p.partial[l * n + j] / real(p.of);
    convert(p.partial + SLOPES * n, p.dphi, PARAMETERS * n);
}

// gx ← the gradient of x for the means s and t, + skip if it is given; without t, these are 0
template <class T> struct ColumnsGradient {
    const T *x, *phi, *gy; const Arithmetic<T> *s, *t; const T* skip; T* gx; int64 m, n, wide;
    const double* params;
};

template <template <class> class F, class T, bool SKIP>
void gradient_of_columns(const ColumnsGradient<T>& p, const Part& part) {
    using real = Arithmetic<T>;
    const int64 n = p.n;
    static const real none[F<real>::SLOPES + 1] = {};
    const real* const t = p.t ? p.t : none;
    const int64 wide = p.t ? p.wide : 1, next = p.t ? 1 : 0;  // of t
    in_fours(part.i, part.i + part.m, [&](auto rows, int64 i) {
        const F<real> f(p.params);
        const T *x = p.x + i * n, *gy = p.gy + i * n, *skip = SKIP ? p.skip + i * n : nullptr;
        T* const gx = p.gx + i * n;
        GPUMLP_LOOP
        for (int64 j = 0; j < n; ++j) {
            const OfColumn<F<real>::MEANS, real> s(p.s + j, p.wide);
            const OfColumn<F<real>::SLOPES, real> slopes(t + next * j, wide);
            const Column<F<real>, real> own(p.phi + j, n);
            real found[rows];
            for (int r = 0; r < rows; ++r) {
                const int64 at = r * n + j;
                found[r] = f.row_gx(real(x[at]), real(gy[at]), s.at, slopes.at, own.phi);
                if (SKIP) found[r] += real(skip[at]);
            }
            for (int r = 0; r < rows; ++r) gx[r * n + j] = found[r];
        }
    });
}

template <template <class> class F, class T> void columns_gradient_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const ColumnsGradient<T>*>(arguments);
    if (p.skip) gradient_of_columns<F, T, true>(p, part);
    else gradient_of_columns<F, T, false>(p, part);
}

template <template <class> class F, class T> void columns_gradient(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ColumnsGradient<T>*>(arguments);
    over_rows(threads, p.m, p.n, columns_gradient_on_rows<F, T>, arguments);
}

}  // namespace gpumlp
