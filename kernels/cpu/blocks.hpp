// Norms, gates, dropout and skips: rows (m, n), row-major, of the type T in which they are stored.
#pragma once

#include "activations.hpp"

namespace gpumlp {

// the parameters of one column of φ, (p, n)
template <class F, class real> struct Column {
    real phi[F::PARAMETERS + 1];

    template <class T> inline Column(const T* column, int64 n) {
        for (int i = 0; i < F::PARAMETERS; ++i) phi[i] = real(column[i * n]);
    }
};

// y ← the stage of each row of x, such as a norm: the functions of F are those of stage.cu
template <class T> struct Rows { const T *x, *phi; T* y; int64 m, n; const double* params; };

// s[I], s[I + 1], …: means over the row x
template <int I, class F, class T, class real> inline void row_means(const F& f, const T* x, int64 n, real* s) {
    if constexpr (I < F::MEANS) {
        s[I] = sum_of<real>(n, [&](int64 j) { return f.template row_mean<I>(real(x[j]), s); }) / real(n);
        row_means<I + 1>(f, x, n, s);
    }
}

// t[I], t[I + 1], …: means over the row x and its gradient
template <int I, class F, class T, class real>
inline void row_slopes(const F& f, const T* x, const T* gy, const T* phi, int64 n, const real* s, real* t) {
    if constexpr (I < F::SLOPES) {
        t[I] = sum_of<real>(n, [&](int64 j) {
            const Column<F, real> own(phi + j, n);
            return f.template row_slope<I>(real(x[j]), real(gy[j]), s, own.phi);
        }) / real(n);
        row_slopes<I + 1>(f, x, gy, phi, n, s, t);
    }
}

// sum[I · n] ← itself + what an entry adds to ∇φ[I], and the same for I + 1, …
template <int I, class F, class real>
inline void add_dphi(const F& f, real x, real gy, const real* s, const real* phi, int64 n, real* sum) {
    if constexpr (I < F::PARAMETERS) {
        sum[I * n] += f.template row_dphi<I>(x, gy, s, phi);
        add_dphi<I + 1>(f, x, gy, s, phi, n, sum);
    }
}

template <template <class> class F, class T> void rows_on_rows(const void* arguments, const Part& part) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const Rows<T>*>(arguments);
    const F<real> f(p.params);  // here, the compiler sees that no store changes it
    for (int64 i = part.i; i < part.i + part.m; ++i) {
        const T* const x = p.x + i * p.n;
        T* const y = p.y + i * p.n;
        real s[F<real>::MEANS + 1];
        row_means<0>(f, x, p.n, s);
        GPUMLP_LOOP
        for (int64 j = 0; j < p.n; ++j) {
            const Column<F<real>, real> own(p.phi + j, p.n);
            y[j] = f.row_y(real(x[j]), s, own.phi);
        }
    }
}

template <template <class> class F, class T> void rows(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Rows<T>*>(arguments);
    over_rows(threads, p.m, p.n, rows_on_rows<F, T>, arguments);
}

// gx ← Jᵀ gy, or that + skip, and ∇φ, (sums / n, n): the sums over the rows
template <class T> struct RowsGradient {
    const T *x, *phi, *gy, *skip; T *gx, *dphi; int64 m, n, sums; Arithmetic<T>* partial; const double* params;
};

template <template <class> class F, class T, bool SKIP>
void gradient_of_rows(const RowsGradient<T>& p, const Part& part) {
    using real = Arithmetic<T>;
    const int64 n = p.n;
    const F<real> f(p.params);
    over_sums(p.m, part.i, part.i + part.m, [&](int64 begin, int64 end, int64 number) {
        real* const sum = p.partial + number * p.sums;
        if (p.sums) std::memset(sum, 0, p.sums * sizeof(real));
        for (int64 i = begin; i < end; ++i) {
            const T *x = p.x + i * n, *gy = p.gy + i * n, *skip = SKIP ? p.skip + i * n : nullptr;
            T* const gx = p.gx + i * n;
            real s[F<real>::MEANS + 1], t[F<real>::SLOPES + 1];
            row_means<0>(f, x, n, s);
            row_slopes<0>(f, x, gy, p.phi, n, s, t);
            GPUMLP_LOOP
            for (int64 j = 0; j < n; ++j) {
                const real entry = x[j], g = gy[j];
                const Column<F<real>, real> own(p.phi + j, n);
                add_dphi<0>(f, entry, g, s, own.phi, n, sum + j);
                const real g_x = f.row_gx(entry, g, s, t, own.phi);
                gx[j] = SKIP ? g_x + real(skip[j]) : g_x;
            }
        }
    });
}

// without ∇φ: sums over some rows are in `partial`
template <template <class> class F, class T> void rows_gradient_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const RowsGradient<T>*>(arguments);
    if (p.skip) gradient_of_rows<F, T, true>(p, part);
    else gradient_of_rows<F, T, false>(p, part);
}

// ∇φ, when all rows are done
template <class T> void rows_gradient_end(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const RowsGradient<T>*>(arguments);
    if (p.sums) add_up(p.partial, row_sums(p.m), p.sums, p.dphi, p.sums);
}

template <template <class> class F, class T> void rows_gradient(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const RowsGradient<T>*>(arguments);
    over_rows(threads, p.m, p.n, rows_gradient_on_rows<F, T>, arguments);
    rows_gradient_end<T>(arguments, threads);
}

// y ← a ⊙ f(b) of rows x = (a | b), (m, 2n)
template <class T> struct Gate { const T* x; T* y; int64 m, n; const double* params; };

template <template <class> class F, class T> void gate_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const Gate<T>*>(arguments);
    const F<Arithmetic<T>> f(p.params);
    for (int64 i = part.i; i < part.i + part.m; ++i) {
        const T *a = p.x + 2 * i * p.n, *b = a + p.n;
        T* const y = p.y + i * p.n;
        GPUMLP_LOOP
        for (int64 j = 0; j < p.n; ++j) y[j] = a[j] * f.f(b[j]);
    }
}

template <template <class> class F, class T> void gate(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Gate<T>*>(arguments);
    over_rows(threads, p.m, p.n, gate_on_rows<F, T>, arguments);
}

// gx ← (gy ⊙ f(b) | gy ⊙ a ⊙ f'(b)), and its column sums
template <class T> struct GateGradient {
    const T *x, *gy; T *gx, *db; int64 m, n; Arithmetic<T>* partial; const double* params;
};

// without the sums of the columns: sums over some rows are in `partial`
template <template <class> class F, class T> void gate_gradient_on_rows(const void* arguments, const Part& part) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const GateGradient<T>*>(arguments);
    const F<real> f(p.params);
    over_sums(p.m, part.i, part.i + part.m, [&](int64 begin, int64 end, int64 number) {
        real *const sum = p.partial + number * 2 * p.n, *const sum_b = sum + p.n;
        std::memset(sum, 0, 2 * p.n * sizeof(real));
        for (int64 i = begin; i < end; ++i) {
            const T *a = p.x + 2 * i * p.n, *b = a + p.n, *gy = p.gy + i * p.n;
            T *ga = p.gx + 2 * i * p.n, *gb = ga + p.n;
            GPUMLP_LOOP
            for (int64 j = 0; j < p.n; ++j) {
                const real g = gy[j], z = b[j], h = f.f(z), slope = f.df(z, h);
                const real ofb = g * a[j] * slope, ofa = g * h;
                gb[j] = ofb;
                ga[j] = ofa;
                sum[j] += ofa;
                sum_b[j] += ofb;
            }
        }
    });
}

template <class T> void gate_gradient_end(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const GateGradient<T>*>(arguments);
    add_up(p.partial, row_sums(p.m), 2 * p.n, p.db, 2 * p.n);
}

template <template <class> class F, class T> void gate_gradient(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const GateGradient<T>*>(arguments);
    over_rows(threads, p.m, p.n, gate_gradient_on_rows<F, T>, arguments);
    gate_gradient_end<T>(arguments, threads);
}

// Philox4x64-10, Salmon et al. (2011): 256 bits for a counter of 256 bits and a key of 128
struct Philox {
    std::uint64_t word[4];

    Philox(std::uint64_t counter, std::uint64_t step, std::uint64_t seed, std::uint64_t layer)
        : word{counter, step, 0, 0} {
        for (int round = 0; round < 10; ++round) {
            const unsigned __int128 a = (unsigned __int128)word[0] * 0xD2E7470EE14C6C93u;
            const unsigned __int128 b = (unsigned __int128)word[2] * 0xCA5A826395121157u;
            word[0] = std::uint64_t(b >> 64) ^ word[1] ^ seed;
            word[2] = std::uint64_t(a >> 64) ^ word[3] ^ layer;
            word[1] = std::uint64_t(b);
            word[3] = std::uint64_t(a);
            seed += 0x9E3779B97F4A7C15u;
            layer += 0xBB67AE8584CAA73Bu;
        }
    }
};

// y ← x ⊙ mask · scale, or that + skip, for the entries from row · n on of a minibatch; y may be x or
// skip
template <class T> struct Dropout {
    const T *x, *skip; T* y; int64 m, n, row; const int64* seed; const double* control;
    int64 last, layer, threshold; double scale;
};

template <class T> void dropout_on_rows(const void* arguments, const Part& part) {
    using real = Arithmetic<T>;
    enum { EACH = 16, MANY = 32 };  // entries that one output of Philox serves; outputs at a time
    const auto& p = *static_cast<const Dropout<T>*>(arguments);
    const int64 before = p.row * p.n, step = int64(p.control[p.last]), seed = *p.seed;
    const int threshold = int(p.threshold);
    const real scale = real(p.scale);
    const int64 begin = before + part.i * p.n, stop = begin + part.m * p.n;
    for (int64 entry = begin, next; entry < stop; entry = next) {
        const int64 output = entry / EACH;
        next = least(stop, (output + MANY) * EACH);
        std::uint16_t bits[EACH * MANY];
        for (int64 i = 0; (output + i) * EACH < next; ++i) {
            const Philox noise(output + i + 1, step, seed, p.layer);
            // the lowest bits first: the processors that we build for are little-endian
            std::memcpy(bits + i * EACH, noise.word, sizeof noise.word);
        }
        const std::uint16_t* const own = bits + entry % EACH;
        const T *const x = p.x + (entry - before), *const skip = p.skip + (entry - before);
        T* const y = p.y + (entry - before);
        const auto kept = [=](int64 k) { return own[k] < threshold ? real(0) : real(x[k] * scale); };
        if (p.skip == nullptr) {
            GPUMLP_LOOP
            for (int64 k = 0; k < next - entry; ++k) y[k] = kept(k);
        } else {
            GPUMLP_LOOP
            for (int64 k = 0; k < next - entry; ++k) y[k] = kept(k) + real(skip[k]);
        }
    }
}

template <class T> void dropout(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Dropout<T>*>(arguments);
    over_rows(threads, p.m, p.n, dropout_on_rows<T>, arguments);
}

// y ← x + skip
template <class T> struct Join { const T *x, *skip; T* y; int64 m, n; };

template <class T> void join_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const Join<T>*>(arguments);
    GPUMLP_LOOP
    for (int64 i = part.i * p.n; i < (part.i + part.m) * p.n; ++i) p.y[i] = p.x[i] + p.skip[i];
}

template <class T> void join(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Join<T>*>(arguments);
    over_rows(threads, p.m, p.n, join_on_rows<T>, arguments);
}

}  // namespace gpumlp
