// The operations of a step on the CPU, as templates of an entry's functions.
//
// An entry E<real> is made from its parameters and has the functions of its CUDA expressions.
// Matrices are (m, n), row-major.  Sums are added up in pieces whose size depends on m and n alone.
#pragma once

#include <cstring>
#include <limits>

#include "math.hpp"
#include "program.hpp"

namespace gpumlp {

enum { LANES = 16, PIECE = 8192, LEAST_ROWS = 32 };  // entries; rows of a piece of a matrix

// −1, 0 or 1; NaN stays NaN
template <class real> inline real sign(real x) {
    return x > real(0) ? real(1) : x < real(0) ? real(-1) : x;
}
// a b, and 0 if a is 0, whatever b is: a target or weight of 0 excludes an output or example
template <class real> inline real times(real a, real b) { return a == real(0) ? real(0) : a * b; }

template <class real> const real& least(const real& a, const real& b) { return b < a ? b : a; }

inline int64 piece_rows(int64 n) { return n < PIECE / LEAST_ROWS ? PIECE / n : LEAST_ROWS; }

// Σ term(j) for j < n, in LANES sums: in one, the compiler could not use vectors
template <class real, class F> inline real sum_of(int64 n, const F& term) {
    real lanes[LANES] = {}, sum = 0;
    int64 j = 0;
    for (; j + LANES <= n; j += LANES)
        for (int k = 0; k < LANES; ++k) lanes[k] += term(j + k);
    if (j > 0)
        for (int k = 0; k < LANES; ++k) sum += lanes[k];
    for (; j < n; ++j) sum += term(j);
    return sum;
}

// ---- products -----------------------------------------------------------------------------------

// out ← α a b + β out with (α, β) = factors, or (1, 0).  a is (m, k) and b (k, n), as they are or
// transposed (CBLAS's flags 111 and 112).  The product is cut into `pieces` of rows or columns of
// out, each by one thread.
template <class real, class size> struct Product {
    void (*gemm)(int, int, int, size, size, size, real, const real*, size, const real*, size, real,
                 real*, size);
    int64 m, n, k;
    const real* a; int64 a_flag, a_stride;
    const real* b; int64 b_flag, b_stride;
    real* out;
    const real* factors;
    int64 each, by_columns;
};

template <class real, class size> void product(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Product<real, size>*>(arguments);
    const real alpha = p.factors ? p.factors[0] : real(1), beta = p.factors ? p.factors[1] : real(0);
    const auto piece = [&](int64 begin, int64 end, int64) {
        const int64 count = end - begin;
        const real *a = p.a, *b = p.b;
        real* out = p.out;
        if (p.by_columns) {
            b += begin * (p.b_flag == 111 ? 1 : p.b_stride);
            out += begin;
        } else {
            a += begin * (p.a_flag == 111 ? p.a_stride : 1);
            out += begin * p.n;
        }
        p.gemm(101, int(p.a_flag), int(p.b_flag), size(p.by_columns ? p.m : count),
               size(p.by_columns ? count : p.n), size(p.k), alpha, a, size(p.a_stride), b,
               size(p.b_stride), beta, out, size(p.n));
    };
    over(threads, p.by_columns ? p.n : p.m, p.each, piece, 1);
}

// ---- activations --------------------------------------------------------------------------------

// z ← z + b, h ← f(z).  z may be h, and then only h is kept.
template <class real> struct BiasActivation {
    real* z; const real* b; real* h; int64 m, n; const double* params;
};

template <template <class> class F, class real> void bias_activation(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const BiasActivation<real>*>(arguments);
    const F<real> f(p.params);
    over(threads, p.m, piece_rows(p.n), [&](int64 begin, int64 end, int64) {
        for (int64 i = begin; i < end; ++i) {
            real *z = p.z + i * p.n, *h = p.h + i * p.n;
            if (z == h) {
                GPUMLP_LOOP
                for (int64 j = 0; j < p.n; ++j) h[j] = f.f(h[j] + p.b[j]);
            } else {
                GPUMLP_LOOP
                for (int64 j = 0; j < p.n; ++j) {
                    const real sum = z[j] + p.b[j];
                    z[j] = sum;
                    h[j] = f.f(sum);
                }
            }
        }
    });
}

// h ← f(z)
template <class real> struct ActivationOf { const real* z; real* h; int64 m, n; const double* params; };

template <template <class> class F, class real> void activation(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationOf<real>*>(arguments);
    const F<real> f(p.params);
    over(threads, p.m * p.n, PIECE, [&](int64 begin, int64 end, int64) {
        GPUMLP_LOOP
        for (int64 i = begin; i < end; ++i) p.h[i] = f.f(p.z[i]);
    });
}

// gz ← gh ⊙ f'(z), db ← column sums of gz.  gz may be gh.
template <class real> struct ActivationGradient {
    const real *gh, *z, *h; real *gz, *db; int64 m, n; real* partial; const double* params;
};

// db ← Σ of the pieces' sums (pieces, n)
template <class real> void add_up(const real* partial, int64 pieces, int64 n, real* db) {
    std::memcpy(db, partial, n * sizeof(real));
    for (int64 i = 1; i < pieces; ++i) {
        GPUMLP_LOOP
        for (int64 j = 0; j < n; ++j) db[j] += partial[i * n + j];
    }
}

template <template <class> class F, class real> void activation_gradient(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationGradient<real>*>(arguments);
    const F<real> f(p.params);
    const int64 each = piece_rows(p.n);
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        real* const sum = p.partial + piece * p.n;
        std::memset(sum, 0, p.n * sizeof(real));
        for (int64 i = begin; i < end; ++i) {
            const real *gh = p.gh + i * p.n, *z = p.z + i * p.n, *h = p.h + i * p.n;
            real* const gz = p.gz + i * p.n;
            GPUMLP_LOOP
            for (int64 j = 0; j < p.n; ++j) {
                const real g = gh[j] * f.df(z[j], h[j]);
                gz[j] = g;
                sum[j] += g;
            }
        }
    });
    add_up(p.partial, (p.m + each - 1) / each, p.n, p.db);
}

// ---- softmax, row by row ------------------------------------------------------------------------

// max and Σ exp(x − max) of a row; e ← exp(x − max) if it is given
template <class real> inline real exp_sum(const real* x, int64 n, real* e, real& top) {
    top = x[0];
    bool numbers = true;  // max of a row with NaN is NaN
    for (int64 j = 0; j < n; ++j) {
        numbers &= x[j] == x[j];
        top = x[j] > top ? x[j] : top;
    }
    if (!numbers) top = std::numeric_limits<real>::quiet_NaN();
    real sum = 0, part[LANES];
    for (int64 j = 0; j < n; j += LANES) {  // the last lanes are filled: full vectors throughout
        const int count = int(least<int64>(LANES, n - j));
        for (int k = 0; k < LANES; ++k) part[k] = x[j + (k < count ? k : 0)] - top;
        for (int k = 0; k < LANES; ++k) part[k] = exp(part[k]);
        for (int k = 0; k < count; ++k) sum += part[k];
        if (e) std::memcpy(e + j, part, count * sizeof(real));
    }
    return sum;
}

// z ← z + b, h ← softmax(z)
template <class real> void softmax_row(const real* z, real* h, int64 n) {
    real top;
    const real sum = exp_sum(z, n, h, top);
    for (int64 j = 0; j < n; ++j) h[j] /= sum;
}

template <class real> void bias_softmax(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const BiasActivation<real>*>(arguments);
    over(threads, p.m, piece_rows(p.n), [&](int64 begin, int64 end, int64) {
        for (int64 i = begin; i < end; ++i) {
            real* const z = p.z + i * p.n;
            for (int64 j = 0; j < p.n; ++j) z[j] += p.b[j];
            softmax_row(z, p.h + i * p.n, p.n);
        }
    });
}

template <class real> void softmax(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationOf<real>*>(arguments);
    over(threads, p.m, piece_rows(p.n), [&](int64 begin, int64 end, int64) {
        for (int64 i = begin; i < end; ++i) softmax_row(p.z + i * p.n, p.h + i * p.n, p.n);
    });
}

// gz ← h ⊙ (gh − gh·h), db ← column sums of gz
template <class real> void softmax_gradient(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ActivationGradient<real>*>(arguments);
    const int64 each = piece_rows(p.n);
    over(threads, p.m, each, [&](int64 begin, int64 end, int64 piece) {
        real* const sum = p.partial + piece * p.n;
        std::memset(sum, 0, p.n * sizeof(real));
        for (int64 i = begin; i < end; ++i) {
            const real *gh = p.gh + i * p.n, *h = p.h + i * p.n;
            real* const gz = p.gz + i * p.n;
            const real dot = sum_of<real>(p.n, [&](int64 j) { return gh[j] * h[j]; });
            for (int64 j = 0; j < p.n; ++j) sum[j] += gz[j] = h[j] * (gh[j] - dot);
        }
    });
    add_up(p.partial, (p.m + each - 1) / each, p.n, p.db);
}

// ---- losses -------------------------------------------------------------------------------------

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

inline void add_cost(const double* partial, int64 pieces, double* J) {
    double sum = 0;
    for (int64 i = 0; i < pieces; ++i) sum += partial[i];
    *J += sum;
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

// ---- regularisers and the update ----------------------------------------------------------------

// the pieces of the entries [begin, end) of θ: f(first, last, strength of λΩ, piece)
template <class real, class F>
void over_theta(const Threads& threads, int64 begin, int64 end, int64 split, double biases,
                const F& f) {
    over(threads, end - begin, PIECE, [&](int64 first, int64 last, int64 piece) {
        first += begin, last += begin;
        const int64 middle = split < first ? first : least(split, last);
        f(first, middle, real(1), piece);
        f(middle, last, real(biases), piece);
    });
}

// J ← J + Σ λΩ(θ), and dθ ← dθ + λ∇Ω(θ) if dθ is given
template <class real> struct Penalty {
    const real* theta; int64 size, split; double biases; double* J; real* dtheta; double* partial;
    const double* params;
};

template <template <class> class O, class real> void penalty(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Penalty<real>*>(arguments);
    const O<real> omega(p.params);
    const int64 pieces = (p.size + PIECE - 1) / PIECE;
    std::memset(p.partial, 0, pieces * sizeof(double));
    over_theta<real>(threads, 0, p.size, p.split, p.biases, [&](int64 i, int64 end, real s, int64 piece) {
        p.partial[piece] += double(s) * sum_of<double>(end - i, [&](int64 j) {
            return double(omega.omega(p.theta[i + j]));
        });
        if (p.dtheta == nullptr) return;
        GPUMLP_LOOP
        for (int64 j = i; j < end; ++j) p.dtheta[j] += s * omega.domega(p.theta[j]);
    });
    add_cost(p.partial, pieces, p.J);
}

// control[0] ← min(1, longest / ‖dθ + λ∇Ω(θ)‖), or NaN if the norm is not finite
template <class real> struct Clip {
    const real *theta, *dtheta; int64 size, split; double biases, longest; double *control, *partial;
    const double* params;
};

template <template <class> class O, class real> void clip(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Clip<real>*>(arguments);
    const O<real> omega(p.params);
    const int64 pieces = (p.size + PIECE - 1) / PIECE;
    std::memset(p.partial, 0, pieces * sizeof(double));
    over_theta<real>(threads, 0, p.size, p.split, p.biases, [&](int64 i, int64 end, real s, int64 piece) {
        p.partial[piece] += sum_of<double>(end - i, [&](int64 j) {
            const double g = double(p.dtheta[i + j] + s * omega.domega(p.theta[i + j]));
            return g * g;
        });
    });
    double sum = 0;
    add_cost(p.partial, pieces, &sum);
    const double norm = __builtin_sqrt(sum);
    const bool finite = norm - norm == 0.0;
    p.control[0] = norm <= p.longest && finite ? 1.0 : p.longest / norm + 0.0 * norm;
}

// One optimizer step on the entries [begin, end) of θ.  groups: for each region of θ, in order, its
// end and the factors of its learning rate and weight decay; null if all factors are 1.
// control[0] = 0 skips the step.
template <class real> struct Update {
    real* theta; const real* dtheta; real* slots; int64 size, split; double biases;
    const double *control, *groups; int64 begin, end; const double *rule, *omega;
};

// the entries [begin, end), which have one strength of λΩ and are in one group
template <template <class> class R, template <class> class O, class real>
__attribute__((noinline)) void update_region(const Update<real>& p, int64 begin, int64 end,
                                             real strength, double rate, double decay) {
    const O<real> omega(p.omega);
    const R<real> rule(p.rule, p.control + 1, real(rate), real(decay));
    const real scale = real(p.control[0]);
    enum { SLOTS = R<real>::SLOTS };
    GPUMLP_LOOP
    for (int64 i = begin; i < end; ++i) {
        real theta = p.theta[i], slot[SLOTS + 1];
        for (int s = 0; s < SLOTS; ++s) slot[s] = p.slots[s * p.size + i];
        rule.rule(theta, slot, scale * (p.dtheta[i] + strength * omega.domega(theta)));
        p.theta[i] = theta;
        for (int s = 0; s < SLOTS; ++s) p.slots[s * p.size + i] = slot[s];
    }
}

template <template <class> class R, template <class> class O, class real>
void update(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Update<real>*>(arguments);
    if (p.control[0] == 0) return;
    over_theta<real>(threads, p.begin, p.end, p.split, p.biases, [&](
        int64 i, int64 end, real strength, int64) {
        if (p.groups == nullptr) {
            if (i < end) update_region<R, O>(p, i, end, strength, 1, 1);
            return;
        }
        for (const double* group = p.groups; i < end; group += 3) {
            const int64 stop = least(int64(group[0]), end);
            if (stop > i) update_region<R, O>(p, i, stop, strength, group[1], group[2]), i = stop;
        }
    });
}

// mean ← d mean + (1 − d) θ for d = min(decay, (t − 1) / (t + 8)), t = control[last]
template <class real> struct Average {
    const real* theta; real* mean; int64 size; double decay; const double* control; int64 last;
};

template <class real> void average(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Average<real>*>(arguments);
    if (p.control[0] == 0) return;
    const double t = p.control[p.last], slow = (t - 1) / (t + 8), d = least(p.decay, slow);
    const real stay = real(d), move = real(1 - d);  // in float32, 1 − d would lose its digits
    const bool near = d > 0.5;  // start from the nearer end, so that d = 0 gives θ itself
    over(threads, p.size, PIECE, [&](int64 begin, int64 end, int64) {
        GPUMLP_LOOP
        for (int64 i = begin; i < end; ++i) {
            const real difference = p.theta[i] - p.mean[i];
            p.mean[i] = near ? p.mean[i] + move * difference : p.theta[i] - stay * difference;
        }
    });
}

// total ← total + part, or total ← part
template <class real> struct Add { const real* part; real* total; int64 size, overwrite; };

template <class real> void add(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const Add<real>*>(arguments);
    if (p.overwrite) {
        std::memcpy(p.total, p.part, p.size * sizeof(real));
        return;
    }
    GPUMLP_LOOP
    for (int64 i = 0; i < p.size; ++i) p.total[i] += p.part[i];
}

// ---- minibatches, and a step as a whole ---------------------------------------------------------

// out ← source[index], rows of so many bytes
struct Gather { const char* source; const int64* index; char* out; int64 m, bytes; };

inline void gather(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Gather*>(arguments);
    const int64 each = 65536 / (p.bytes + 1) + 1;
    over(threads, p.m, each, [&](int64 begin, int64 end, int64) {
        if (p.bytes == 4)  // labels
            for (int64 i = begin; i < end; ++i)
                std::memcpy(p.out + 4 * i, p.source + 4 * p.index[i], 4);
        else
            for (int64 i = begin; i < end; ++i)
                std::memcpy(p.out + i * p.bytes, p.source + p.index[i] * p.bytes, p.bytes);
    });
}

// out ← weights[index] / Σ weights[index], or zeros if the sum is 0
template <class real> struct MeanWeights {
    const real* weights; const int64* index; real* out; int64 m;
};

template <class real> void mean_weights(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const MeanWeights<real>*>(arguments);
    double sum = 0;
    for (int64 i = 0; i < p.m; ++i) sum += double(p.out[i] = p.weights[p.index[i]]);
    for (int64 i = 0; i < p.m; ++i) p.out[i] = sum > 0 ? real(p.out[i] / sum) : real(0);
}

// step t = position: index ← order[t size …], row t of controls → control and factors, J ← 0
template <class real> struct Begin {
    const int64 *position, *order; const double* controls; int64 size; int64* index; int64 m;
    double* control; int64 numbers; real* factors; double* J;
};

template <class real> void begin(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const Begin<real>*>(arguments);
    const int64 t = *p.position;
    const double* const row = p.controls + t * (p.numbers + 2);
    std::memcpy(p.index, p.order + t * p.size, p.m * sizeof(int64));
    std::memcpy(p.control, row, p.numbers * sizeof(double));
    p.factors[0] = real(row[p.numbers]), p.factors[1] = real(row[p.numbers + 1]);
    *p.J = 0;
}

// costs[t] ← J; then t ← t + 1, or t ← 0 after the last step
struct End { int64* position; const double* J; double* costs; int64 steps; };

inline void end(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const End*>(arguments);
    p.costs[*p.position] = *p.J;
    *p.position = (*p.position + 1) % p.steps;
}

}  // namespace gpumlp
