// What passes over the flat θ: regularisers, clipping, the update, the average.
#pragma once

#include "panels.hpp"

namespace gpumlp {

// the pieces of the entries [begin, end) of θ: f(first, last, strength of λΩ, piece)
template <class real, class F>
void over_theta(const Threads& threads, int64 begin, int64 end, int64 split, double biases,
                const F& f, int64 share = 2) {
    over(threads, end - begin, PIECE, [&](int64 first, int64 last, int64 piece) {
        first += begin, last += begin;
        const int64 middle = split < first ? first : least(split, last);
        f(first, middle, real(1), piece);
        f(middle, last, real(biases), piece);
    }, share);
}

// A gradient, of θ's type or in 16 bits.
template <class real> struct Gradient {
    void* data; int64 is_16_bit;

    real* plain() const { return static_cast<real*>(data); }
    bfloat16* in_16_bits() const { return static_cast<bfloat16*>(data); }
};

// the entries [begin, end) of a gradient: where they are, or converted, in this thread's memory
template <class real>
__attribute__((noinline)) const real* entries(const Gradient<real>& g, int64 begin, int64 end) {
    if (!g.is_16_bit) return g.plain() + begin;
    real* const copy = static_cast<real*>(blocks());
    convert(g.in_16_bits() + begin, copy, end - begin);
    return copy;
}

// J ← J + Σ λΩ(θ), and dθ ← dθ + λ∇Ω(θ) if dθ is given
template <class real> struct Penalty {
    const real* theta; int64 size, split; double biases; double* J; Gradient<real> dtheta; double* partial;
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
        const auto add = [&](auto* dtheta) {
            GPUMLP_LOOP
            for (int64 j = i; j < end; ++j) dtheta[j] = dtheta[j] + s * omega.domega(p.theta[j]);
        };
        if (p.dtheta.data == nullptr) return;
        if (p.dtheta.is_16_bit) add(p.dtheta.in_16_bits());
        else add(p.dtheta.plain());
    });
    add_cost(p.partial, pieces, p.J);
}

// control[0] ← min(1, longest / ‖dθ + λ∇Ω(θ)‖), or NaN if the norm is not finite
template <class real> struct Clip {
    const real* theta; Gradient<real> dtheta; int64 size, split; double biases, longest;
    double *control, *partial; const double* params;
};

template <template <class> class O, class real> void clip(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Clip<real>*>(arguments);
    const O<real> omega(p.params);
    const int64 pieces = (p.size + PIECE - 1) / PIECE;
    std::memset(p.partial, 0, pieces * sizeof(double));
    over_theta<real>(threads, 0, p.size, p.split, p.biases, [&](int64 i, int64 end, real s, int64 piece) {
        const real* const dtheta = entries(p.dtheta, i, end);
        p.partial[piece] += sum_of<double>(end - i, [&](int64 j) {
            const double g = double(dtheta[j] + s * omega.domega(p.theta[i + j]));
            return g * g;
        });
    });
    double sum = 0;
    add_cost(p.partial, pieces, &sum);
    const double norm = __builtin_sqrt(sum);
    const bool finite = norm - norm == 0.0;
    p.control[0] = norm <= p.longest && finite ? 1.0 : p.longest / norm + 0.0 * norm;
}

template <class real>
__attribute__((noinline)) void round_entries(const real* theta, bfloat16* rounded, int64 begin,
                                             int64 end) {
    convert(theta + begin, rounded + begin, end - begin);
}

// One optimizer step on the entries [begin, end) of θ.  groups: for each region of θ, in order, its
// end and the factors of its learning rate and weight decay; null if all factors are 1.
// control[0] = 0 skips the step.  rounded ← θ in 16 bits, if it is given.
template <class real> struct Update {
    real* theta; bfloat16* rounded; Gradient<real> dtheta; real* slots; int64 size, split; double biases;
    const double *control, *groups; int64 begin, end; const double *rule, *omega;
};

// the entries [begin, end), which have one strength of λΩ and are in one group
template <template <class> class R, template <class> class O, class real>
__attribute__((noinline)) void update_region(const Update<real>& p, int64 begin, int64 end,
                                             real strength, double rate, double decay) {
    const O<real> omega(p.omega);
    const R<real> rule(p.rule, p.control + 1, real(rate), real(decay));
    const real scale = real(p.control[0]);
    const real* const dtheta = entries(p.dtheta, begin, end);
    enum { SLOTS = R<real>::SLOTS };
    GPUMLP_LOOP
    for (int64 i = begin; i < end; ++i) {
        real theta = p.theta[i], slot[SLOTS + 1];
        for (int s = 0; s < SLOTS; ++s) slot[s] = p.slots[s * p.size + i];
        rule.rule(theta, slot, scale * (dtheta[i - begin] + strength * omega.domega(theta)));
        p.theta[i] = theta;
        for (int s = 0; s < SLOTS; ++s) p.slots[s * p.size + i] = slot[s];
    }
}

template <template <class> class R, template <class> class O, class real>
void update_entries(const Update<real>& p, const Threads& threads, int64 begin, int64 end) {
    if (p.control[0] == 0) return;
    over_theta<real>(threads, begin, end, p.split, p.biases, [&](
        int64 i, int64 end, real strength, int64) {
        const int64 first = i;
        if (p.groups == nullptr) {
            if (i < end) update_region<R, O>(p, i, end, strength, 1, 1);
        } else {
            for (const double* group = p.groups; i < end; group += 3) {
                const int64 stop = least(int64(group[0]), end);
                if (stop > i)
                    update_region<R, O>(p, i, stop, strength, group[1], group[2]), i = stop;
            }
        }
        if (p.rounded) round_entries(p.theta, p.rounded, first, end);
    }, 1);
}

template <template <class> class R, template <class> class O, class real>
void update(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Update<real>*>(arguments);
    update_entries<R, O>(p, threads, p.begin, p.end);
}

// m entries of θ from the entry i on
template <template <class> class R, template <class> class O, class real>
void update_part(const void* arguments, const Part& part) {
    const Threads alone = {1, nullptr};
    update_entries<R, O>(*static_cast<const Update<real>*>(arguments), alone, part.i, part.i + part.m);
}

// rounded ← θ in 16 bits
struct Round { const float* theta; bfloat16* rounded; int64 size; };

inline void round(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Round*>(arguments);
    over(threads, p.size, PIECE, [&](int64 begin, int64 end, int64) {
        round_entries(p.theta, p.rounded, begin, end);
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
template <class T> struct Add { const T* part; Arithmetic<T>* total; int64 size, overwrite; };

template <class T> void add(const void* arguments, const Threads&) {
    const auto& p = *static_cast<const Add<T>*>(arguments);
    if (p.overwrite) return convert(p.part, p.total, p.size);
    GPUMLP_LOOP
    for (int64 i = 0; i < p.size; ++i) p.total[i] += p.part[i];
}

// ---- the matrix nearest to V that is orthogonal

// X ← V / ‖V‖, or zeros of zeros, or NaN if the norm is not finite
template <class real> struct Normalize { const real* V; real* X; int64 size; double least, *partial; };

template <class real> void normalize(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Normalize<real>*>(arguments);
    over(threads, p.size, PIECE, [&](int64 begin, int64 end, int64 piece) {
        p.partial[piece] = sum_of<double>(end - begin, [&](int64 i) {
            return double(p.V[begin + i]) * double(p.V[begin + i]);
        });
    });
    double sum = 0;
    add_cost(p.partial, (p.size + PIECE - 1) / PIECE, &sum);
    const double norm = __builtin_sqrt(sum);
    const real inverse = real(1 / (norm > p.least ? norm : p.least) + 0.0 * norm);  // NaN of inf
    over(threads, p.size, PIECE, [&](int64 begin, int64 end, int64) {
        GPUMLP_LOOP
        for (int64 i = begin; i < end; ++i) p.X[i] = inverse * p.V[i];
    });
}

// A ← scale (a I + b A + c P), for (r, r) matrices; factors: a, b, c
template <class real> struct Quintic {
    real* A; const real* P; int64 r; double scale; const double* factors;
};

template <class real> void quintic(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Quintic<real>*>(arguments);
    const real scale = real(p.scale), b = real(p.factors[1]), c = real(p.factors[2]);
    over(threads, p.r, piece_rows(p.r), [&](int64 begin, int64 end, int64) {
        for (int64 i = begin; i < end; ++i) {
            real* const A = p.A + i * p.r;
            GPUMLP_LOOP
            for (int64 j = 0; j < p.r; ++j) A[j] = scale * (b * A[j] + c * p.P[i * p.r + j]);
            A[i] += scale * real(p.factors[0]);
        }
    });
}

}  // namespace gpumlp
