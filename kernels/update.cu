// One optimizer step over the flat θ, with the gradient of Ω, in one pass over memory.
//
// The entries supply  void rule(real& theta, real* slot, real g, const real* control,
// real lr_factor, real decay_factor),  SLOTS,  NUMBERS (how many numbers of control the rule may
// read)  and  real domega(real theta).
// The loader puts above this:  typedef … Slot;  the type of the optimizer's state: real, or
//                                               bfloat16
//                              typedef … Grad;  the type of dθ: T, or real
//                              enum { GROUPED = … };  whether regions of θ have their own factors
//                                               of the learning rate and the weight decay
// Weights come first.  Biases start at `split`; there, λ is multiplied by bias_strength.
// slots is (SLOTS, n); n and split are multiples of PACK.
// A thread takes the entries of one 16-byte access to θ at a time.  Neighbouring threads access
// neighbouring bytes of every array, so that each store of a warp writes whole sectors of 32 bytes.
#include "common.cuh"
#include "theta.cuh"

// hash a number to 32 bits that look random: each bit of x changes half of them
__device__ inline unsigned mix(unsigned x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// slot ← x.  16-bit slots use stochastic rounding, whose mean is x itself, because β₂ = 0.999
// changes a slot by less than half of bfloat16's last digit
__device__ inline void keep(real x, unsigned, real& slot) { slot = x; }
template <class S> __device__ void keep(real x, unsigned noise, S& slot) {
    union { float value; unsigned bits; } in;
    union { unsigned short bits; S value; } out = {0};
    in.value = float(x);
    const bool finite = (in.bits & 0x7f800000u) != 0x7f800000u;
    out.bits = (unsigned short)((in.bits + (finite ? noise & 0xffffu : 0u)) >> 16);
    slot = out.value;
}

// g = control[0] (dθ / S + λ∇Ω(θ)), then the rule for each θ and its slots, with control[1], …
// Only for the entries from `begin` to `end`, which are multiples of PACK.  S is the loss scale,
// and scaling[1] is 1/S.  theta and rounded: see theta.cuh; if T is θ's type, rounded is not
// accessed.  control[0] = 0 skips the step.  groups: for each region, in order, its end (a multiple of
// PACK) and its factors.  origin: the place of theta[0] in the whole θ, which the noise depends on.
// Of several networks: see member().
GPUMLP_KERNEL(update, THREADS)
(Theta* theta, T* rounded, const Grad* dtheta, Slot* slots, const double* control,
 const double* scaling, const double* groups, int64 n, int64 split, real bias_strength, int64 begin,
 int64 end, int64 origin) {
    after_previous_launch();
    theta += member() * n, rounded += member() * n, dtheta += member() * n;
    slots += member() * SLOTS * n, control += member() * (NUMBERS + 2), scaling += 4 * member();
    const real scale = real(control[0]), unscale = real(scaling[1]);
    if (scale == real(0)) return;
    real numbers[NUMBERS];  // read once: the writes below might change control
    for (int i = 0; i < NUMBERS; ++i) numbers[i] = real(control[1 + i]);
    const unsigned step = mix((unsigned)control[1 + NUMBERS]);
    for (int64 i = begin + first() * WIDE; i < end; i += stride() * WIDE) {
        const double* group = groups;  // searched again for each i: to remember the region spills
        if (GROUPED) while (i >= int64(group[0])) group += 3;
        const real lr_factor = GROUPED ? real(group[1]) : real(1),
                   decay_factor = GROUPED ? real(group[2]) : real(1);
        const real strength = i < split ? real(1) : bias_strength;
        Pack<WIDE, real> x = theta_at(theta, rounded, i);
        const Pack<WIDE, Grad> d = pack<WIDE>(dtheta + i);
        Pack<WIDE, Slot> state[SLOTS + 1];
        for (int s = 0; s < SLOTS; ++s) state[s] = pack<WIDE>(slots + s * n + i);
        for (int j = 0; j < WIDE; ++j) {
            real value = x.at[j], slot[SLOTS + 1];
            for (int s = 0; s < SLOTS; ++s) slot[s] = real(state[s].at[j]);
            const real g = unscale * real(d.at[j]) + strength * domega(value);
            rule(value, slot, scale * g, numbers, lr_factor, decay_factor);
            x.at[j] = value;
            const int64 entry = origin + i + j;
            unsigned noise = step ^ (unsigned)entry ^ mix((unsigned)(entry >> 32));
            for (int s = 0; s < SLOTS; ++s) keep(slot[s], noise = mix(noise), state[s].at[j]);
        }
        keep_theta(x, theta, rounded, i);
        for (int s = 0; s < SLOTS; ++s) pack<WIDE>(slots + s * n + i) = state[s];
    }
}
