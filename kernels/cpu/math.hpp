// The functions that an entry's expressions may call, by the names that CUDA gives them.
#pragma once

#include <math.h>  // besides <cmath>: names such as ::expf

#include <cmath>
#include <type_traits>

#include "elementary.hpp"

namespace gpumlp {

using std::abs, std::copysign, std::fabs, std::sqrt;
using std::acos, std::asin, std::atan, std::atan2, std::cos, std::sin, std::tan;
using std::acosh, std::asinh, std::atanh, std::cosh, std::sinh;
using std::cbrt, std::exp2, std::hypot, std::log10, std::log2, std::logb, std::pow;
using std::ceil, std::floor, std::nearbyint, std::rint, std::round, std::trunc;
using std::erfc, std::lgamma, std::tgamma;
using std::fdim, std::fma, std::fmod, std::frexp, std::ldexp, std::modf, std::remainder;
using std::isfinite, std::isinf, std::isnan, std::signbit;

#define GPUMLP_FUNCTION(name)                                                        \
    GPUMLP_INLINE float name(float x) { return elementary::name(x); }                \
    GPUMLP_INLINE double name(double x) { return elementary::name(x); }              \
    template <class I, class = std::enable_if_t<std::is_integral<I>::value>>         \
    GPUMLP_INLINE double name(I x) { return elementary::name(double(x)); }
GPUMLP_FUNCTION(exp)
GPUMLP_FUNCTION(expm1)
GPUMLP_FUNCTION(log)
GPUMLP_FUNCTION(log1p)
GPUMLP_FUNCTION(tanh)
GPUMLP_FUNCTION(erf)
#undef GPUMLP_FUNCTION

// C's fmin and fmax: of a number and NaN the result is the number.  With a constant b the
// comparison b != b costs nothing.
template <class A, class B> GPUMLP_INLINE std::common_type_t<A, B> fmin(A a, B b) {
    using R = std::common_type_t<A, B>;
    const R least = R(a) < R(b) ? R(a) : R(b);  // b if one of them is NaN
    return b != b ? R(a) : least;
}
template <class A, class B> GPUMLP_INLINE std::common_type_t<A, B> fmax(A a, B b) {
    using R = std::common_type_t<A, B>;
    const R greatest = R(a) > R(b) ? R(a) : R(b);
    return b != b ? R(a) : greatest;
}

// in bfloat16, which the CPU backend does not have, these are faster than exact
template <class R> GPUMLP_INLINE R fast_tanh(R x) { return tanh(x); }
template <class R> GPUMLP_INLINE R fast_sigmoid(R x) { return R(1) / (R(1) + exp(-x)); }

// CUDA's further names
template <class A, class B> GPUMLP_INLINE auto min(A a, B b) { return fmin(a, b); }
template <class A, class B> GPUMLP_INLINE auto max(A a, B b) { return fmax(a, b); }
template <class R> GPUMLP_INLINE auto rsqrt(R x) { return 1 / sqrt(x); }

}  // namespace gpumlp

#undef GPUMLP_INLINE
