// Elementary functions of the compiled CPU backend: exp, expm1, log, log1p, tanh and erf for float
// and double.
//
// Each function is free of branches, tables and calls, so a compiler vectorises a plain loop
//     for (long i = 0; i < n; ++i) y[i] = tanh(x[i]);
// for SSE2, AVX2, AVX-512 and NEON, given -O3 -fno-math-errno -fno-trapping-math.
// -ffp-contract=fast is allowed.  -ffast-math is not: it removes the steps that keep the digits.
//
// Largest errors in units in the last place (ulp), with fused multiply-add or without, over every
// float and over 6 · 10^7 doubles or more:
//              float  double                 float  double
//     exp       1.1     1.0         log1p     1.9     1.6
//     expm1     1.8     1.7         tanh      2.7     1.5
//     log       1.3     1.0         erf       1.5     1.6
// A subnormal result is right within 1 unit of the smallest subnormal.  Zeros keep their sign,
// NaN gives NaN, and infinities give the limits.
//
// The coefficients are minimax fits by the Remez algorithm, in 60 digits, and then rounded.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define GPUMLP_INLINE static inline __attribute__((always_inline))

namespace gpumlp {

using std::copysign, std::fabs;

// ---- numbers and their bits ---------------------------------------------------------------------

namespace elementary {

template <class R> struct Format;

template <> struct Format<float> {
    using Bits = std::uint32_t;
    static constexpr int MANTISSA = 23, BIAS = 127;
    static constexpr Bits SQRT_HALF = 0x3f3504f3;
    static constexpr float TO_INTEGER = 12582912.0f;  // 1.5 · 2^23
    static constexpr float LN_2_HIGH = 0.693145752f, LN_2_LOW = 1.42860677e-6f;  // 16 bits + rest
    static constexpr float EXP_IS_ZERO = -104, EXP_IS_INFINITE = 89, EXPM1_IS_MINUS_1 = -18;
};

template <> struct Format<double> {
    using Bits = std::uint64_t;
    static constexpr int MANTISSA = 52, BIAS = 1023;
    static constexpr Bits SQRT_HALF = 0x3fe6a09e667f3bcd;
    static constexpr double TO_INTEGER = 6755399441055744.0;  // 1.5 · 2^52
    static constexpr double LN_2_HIGH = 0.69314718055989033;  // 42 bits + rest
    static constexpr double LN_2_LOW = 5.497923018708371e-14;
    static constexpr double EXP_IS_ZERO = -746, EXP_IS_INFINITE = 710, EXPM1_IS_MINUS_1 = -40;
};

template <class R> using Bits = typename Format<R>::Bits;

template <class R> GPUMLP_INLINE Bits<R> to_bits(R x) {
    Bits<R> bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

template <class R> GPUMLP_INLINE R from_bits(Bits<R> bits) {
    R x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// 2^n, for the low bits of n: the higher bits are shifted out
template <class R> GPUMLP_INLINE R power_of_two(Bits<R> n) {
    using F = Format<R>;
    return from_bits<R>((n << F::MANTISSA) + (Bits<R>(F::BIAS) << F::MANTISSA));
}

// The polynomial with the coefficients of x^0, x^1, …, by Horner's rule in x² with pairs of them:
// (c0 + c1 x) + x² ((c2 + c3 x) + x² (…)).  Half as many operations wait for each other as with
// Horner's rule in x, which takes up to 25 % longer.
template <class R, class C> GPUMLP_INLINE R in_pairs(R, R, C last) { return R(last); }
template <class R, class C> GPUMLP_INLINE R in_pairs(R x, R, C first, C second) {
    return R(first) + x * R(second);
}
template <class R, class C, class... Cs>
GPUMLP_INLINE R in_pairs(R x, R square, C first, C second, Cs... others) {
    return (R(first) + x * R(second)) + square * in_pairs(x, square, others...);
}
template <class R, class... Cs> GPUMLP_INLINE R polynomial(R x, Cs... coefficients) {
    return in_pairs(x, x * x, coefficients...);
}

// ---- exp and expm1 ------------------------------------------------------------------------------

// x = n ln 2 + r + rest with an integer n, |r| ≤ ln 2 / 2, and the error of r in `rest`
template <class R> struct Reduced {
    R r, rest;
    Bits<R> n;  // in the low bits, above them are constant bits of which the sign is 0
};

template <class R> GPUMLP_INLINE Reduced<R> reduce(R x) {
    using F = Format<R>;
    // The sum has no bits for a fraction, so it is rounded, and its last bits are those of n.
    // This takes no conversion to integers, which AVX2 does not have for double.
    const R shifted = x * R(1.4426950408889634) + F::TO_INTEGER;
    const R n = shifted - F::TO_INTEGER;
    const R above = x - n * F::LN_2_HIGH;  // exact: the product has no more bits than R
    const R r = above - n * F::LN_2_LOW;
    return {r, (above - r) - n * F::LN_2_LOW, to_bits(shifted)};
}

// (exp(r) − 1 − r) / r²: degree 4 for float, which gives expm1(r) with an error of 2^-26; degree 10
// for double, 2^-61
GPUMLP_INLINE float exp_tail(float r) {
    return polynomial(
        r, 0.49999998136996515, 0.16666543659624566, 0.04166720329392409, 0.008366519410802986,
        0.001388236388244435
    );
}
GPUMLP_INLINE double exp_tail(double r) {
    return polynomial(
        r, 0.5, 0.16666666666666677, 0.04166666666666651, 0.008333333333321691,
        0.001388888888896237, 0.0001984126988596625, 2.480158717254267e-05, 2.755724437384467e-06,
        2.755740263904146e-07, 2.510897900576326e-08, 2.0875331134437408e-09
    );
}

// exp(x) = 2^n exp(r).  2^n is two factors: it can be 2^128 or 2^-150 where the result is a float.
template <class R> GPUMLP_INLINE R exp(R x) {
    using F = Format<R>;
    x = x < F::EXP_IS_ZERO ? F::EXP_IS_ZERO : x;  // these comparisons keep NaN
    x = x > F::EXP_IS_INFINITE ? F::EXP_IS_INFINITE : x;
    const Reduced<R> part = reduce(x);
    const R r = part.r;
    const Bits<R> half = part.n >> 1;
    const R value = R(1) + (r + r * r * exp_tail(r));
    return value * power_of_two<R>(half) * power_of_two<R>(part.n - half);
}

// expm1(x) = 2^n expm1(r) + (2^n − 1), with half of it computed first, because 2^n can overflow
template <class R> GPUMLP_INLINE R expm1(R x) {
    using F = Format<R>;
    R inner = x < F::EXPM1_IS_MINUS_1 ? F::EXPM1_IS_MINUS_1 : x;
    inner = inner > F::EXP_IS_INFINITE ? F::EXP_IS_INFINITE : inner;
    const Reduced<R> part = reduce(inner);
    const R r = part.r, scale = power_of_two<R>(part.n - 1);
    const R value = r + (r * r * exp_tail(r) + part.rest);
    const R result = R(2) * (scale * value + (scale - R(0.5)));
    return fabs(x) < R(1e-17) ? x : result;  // keeps the sign of 0 and the bits of subnormals
}

// ---- log and log1p ------------------------------------------------------------------------------

// x = 2^k (1 + f) for a normal x > 0, with 1 + f in [√½, √2)
template <class R> struct Split {
    R k, f;
    Bits<R> biased;  // k + BIAS
};

template <class R> GPUMLP_INLINE Split<R> split(R x) {
    using F = Format<R>;
    constexpr Bits<R> ONE = Bits<R>(1) << F::MANTISSA;
    const Bits<R> above = to_bits(x) + (F::BIAS * ONE - F::SQRT_HALF);
    const Bits<R> biased = above >> F::MANTISSA;
    const R integer = from_bits<R>(biased | to_bits(R(ONE)));  // 2^MANTISSA + biased
    const R mantissa = from_bits<R>((above & (ONE - 1)) + F::SQRT_HALF);
    return {integer - (R(ONE) + F::BIAS), mantissa - R(1), biased};
}

// log(1 + f) − f for 1 + f in [√½, √2)
GPUMLP_INLINE float log_tail(float f) {  // f² times degree 7: error 2^-25
    const float p = polynomial(
        f, -0.49999991628013735, 0.3333394878738962, -0.2500175507528403, 0.1996211502685123,
        -0.1657047823835223, 0.14917591828546345, -0.14307896364899692, 0.08736335576355261
    );
    return f * f * p;
}
GPUMLP_INLINE double log_tail(double f) {  // 2 atanh(s) with s = f / (2 + f), so 2s = f − s f
    const double s = f / (2 + f), w = s * s;
    const double p = polynomial(  // 2 atanh(s) = 2s + s³ p(s²): degree 6, error 2^-58
        w, 0.6666666666666734, 0.3999999999941452, 0.28571428742435767, 0.2222219856700534,
        0.18183564706487532, 0.15314039407455407, 0.14796074470546294
    );
    return s * (w * p - f);
}

// the results of `value`, the logarithm of a positive number x, and of its limits
template <class R> GPUMLP_INLINE R log_of(R x, R value) {
    constexpr R INFINITE = std::numeric_limits<R>::infinity();
    const R below = x == R(0) ? -INFINITE : std::numeric_limits<R>::quiet_NaN();
    const R above = x < INFINITE ? value : x;
    return x > R(0) ? above : below;
}

// log(x) = k ln 2 + log(1 + f)
template <class R> GPUMLP_INLINE R log(R x) {
    using F = Format<R>;
    const bool subnormal = x < std::numeric_limits<R>::min();
    constexpr R UP = R(Bits<R>(1) << F::MANTISSA);
    const Split<R> part = split(subnormal ? x * UP : x);
    const R k = part.k - (subnormal ? R(F::MANTISSA) : R(0));
    return log_of(x, k * F::LN_2_HIGH + (part.f + (log_tail(part.f) + k * F::LN_2_LOW)));
}

// log1p(x) = log(u + rest) with u = 1 + x rounded, and its error `rest`
template <class R> GPUMLP_INLINE R log1p(R x) {
    using F = Format<R>;
    const R u = R(1) + x, x_of_u = u - R(1);
    const R rest = (x - x_of_u) + (R(1) - (u - x_of_u));  // exact for each order of 1 and |x|
    const Split<R> part = split(u);
    const Bits<R> minus_k = Bits<R>(2 * F::BIAS + 1) - part.biased;
    const R half_down = from_bits<R>(minus_k << F::MANTISSA);  // 2 · 2^-k, which does not underflow
    const R f = part.f + R(0.5) * rest * half_down;
    const R low = log_tail(f) + part.k * F::LN_2_LOW;
    const R result = log_of(u, part.k * F::LN_2_HIGH + (f + low));
    return fabs(x) < R(1e-17) ? x : result;
}

// ---- tanh and erf -------------------------------------------------------------------------------

// exp(x) where it is neither subnormal nor infinite
template <class R> GPUMLP_INLINE R normal_exp(R x) {
    const Reduced<R> part = reduce(x);
    const R r = part.r;
    return (R(1) + (r + r * r * exp_tail(r))) * power_of_two<R>(part.n);
}

// expm1(2a) / (expm1(2a) + 2) with a = |x|
GPUMLP_INLINE float tanh(float x) {
    const float a = fabs(x), inner = a > 10 ? 10 : a;  // NaN stays NaN
    const Reduced<float> part = reduce(2 * inner);
    const float r = part.r, scale = power_of_two<float>(part.n);
    const float value = scale * (r + r * r * exp_tail(r)) + (scale - 1);
    return copysign(value / (value + 2), x);
}

// 1 − 2 / (exp(2a) + 1) with a = |x|, where this does not cancel, else a + a³ p(a²) of degree 9,
// error 2^-55.5: the formula for float has twice the error
GPUMLP_INLINE double tanh(double x) {
    const double a = fabs(x), inner = a > 20 ? 20 : a, y = inner * inner;
    const double p = polynomial(
        y, -0.3333333333333235, 0.13333333333173247, -0.053968253878130194, 0.02186948602022094,
        -0.008863195073019942, 0.0035917240011887172, -0.0014532368095142973,
        0.0005791933050970499, -0.00021038969410121556, 5.107892719000683e-05
    );
    const double large = 1 - 2 / (normal_exp(2 * inner) + 1);
    return copysign(a < 0.55 ? a + a * (y * p) : large, x);
}

// erf(a) / a − 1 with y = a², for a < 1: degree 6 for float, error 2^-29.5; degree 11 for double,
// 2^-57
GPUMLP_INLINE float erf_tail(float y) {
    return polynomial(
        y, 0.1283791657111406, -0.3761262568827172, 0.11283583312333714, -0.026853723568796634,
        0.005188138709102934, -0.000800835341261886, 7.847203215415812e-05
    );
}
GPUMLP_INLINE double erf_tail(double y) {
    return polynomial(
        y, 0.12837916709551256, -0.3761263890318355, 0.11283791670945253, -0.02686617064327622,
        0.005223977607423468, -0.0008548325989696758, 0.00012055295320494294,
        -1.4924744663335489e-05, 1.6447517677871873e-06, -1.6209175911748696e-07,
        1.3722976265924504e-08, -7.801188874097751e-10
    );
}

// exp(a²) (1 − erf(a)) for a ≥ 1: degrees 2 and 2 for float, error of exp(−a²) times it 2^-26;
// degrees 5 and 6 for double, 2^-59
GPUMLP_INLINE float erfc_ratio(float a) {
    return polynomial(a, 0.9935232554878257, 0.413103370617697, 0.003349101838946) /
           polynomial(a, 1.0, 1.506286637963776, 0.7912577446204433);
}
GPUMLP_INLINE double erfc_ratio(double a) {
    const double p = polynomial(
        a, 0.9999998869887333, 1.3905996663817717, 0.9495476589143906, 0.3736149324828111,
        0.08435373367814264, 0.008931010022994719
    );
    const double q = polynomial(
        a, 1.0, 2.518977642897895, 2.7919155347352684, 1.757210245856479, 0.6701896357605076,
        0.1495091956034781, 0.0158299255404942
    );
    return p / q;
}

// for a = |x|: 1 − exp(−a²) times a ratio, or near 0 a polynomial
template <class R> GPUMLP_INLINE R erf(R x) {
    const R a = fabs(x), inner = a > R(6) ? R(6) : a, y = inner * inner;  // NaN stays NaN
    const R large = R(1) - normal_exp(-y) * erfc_ratio(inner);
    return copysign(a < R(1) ? a + a * erf_tail(y) : large, x);
}

}  // namespace elementary

}  // namespace gpumlp
