// bfloat16: the upper half of a float.  It is stored, and computed with as float.
#pragma once

#include "math.hpp"

namespace gpumlp {

struct bfloat16 {
    std::uint16_t bits;
    bfloat16() = default;
    // to the nearest, of two equally near ones to the even one; NaN stays NaN
    bfloat16(float x) {
        const std::uint32_t all = elementary::to_bits(x);
        const std::uint32_t rounded = (all + 0x7fff + ((all >> 16) & 1)) >> 16;
        bits = std::uint16_t(x == x ? rounded : (all >> 16) | 0x40);
    }
    operator float() const { return elementary::from_bits<float>(std::uint32_t(bits) << 16); }
};

template <class T> constexpr bool IS_16_BIT = std::is_same<T, bfloat16>::value;
// the type in which a stored type is computed with
template <class T> using Arithmetic = std::conditional_t<IS_16_BIT<T>, float, T>;

// to ← from
template <class A, class B> void convert(const A* from, B* to, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = B(from[i]);
}

}  // namespace gpumlp
