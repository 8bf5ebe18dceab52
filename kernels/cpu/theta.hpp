// What passes over the flat θ: regularisers, clipping, the update, the average.
#pragma once

#include "pieces.hpp"

namespace gpumlp {

// the pieces of the entries [begin, end) of θ: f(first, last, strength of λΩ, piece)
template <class real, class F>
void over_theta(const Threads& threads, int64 begin, int64 end, int64 split, double biases,
                const F& f, int64 share = 4) {
    over(threads, end - begin, PIECE, [&](int64 first, int64 last, int64 piece) {
        first += begin, last += begin;
        const int64 middle = split < first ? first : least(split, last);
        f(first, middle, real(1), piece);
        f(middle, last, real(biases), piece);
    }, share);
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
    }, 1);
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

}  // namespace gpumlp
