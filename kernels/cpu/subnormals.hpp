// Numbers below the smallest normal one.
#pragma once

#include <cstdint>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace gpumlp {

// While it lives, its thread takes subnormal operands and results for 0.  An x86 processor needs 100
// times as long for them, and they stay where they come up: the mean of a gradient that is 0 from some
// step on, as that of a dead unit, shrinks until it is subnormal, and rounding keeps it there.  They
// also lie in the unused entries of vectors.  XLA does the same on the CPU.
class SubnormalsAreZero {
#if defined(__SSE2__)
    enum { MODE = 0x8040 };  // bits of MXCSR: FTZ and DAZ
    static std::uint64_t get() { return _mm_getcsr(); }
    static void set(std::uint64_t mode) { _mm_setcsr(unsigned(mode)); }
#elif defined(__aarch64__)
    enum { MODE = 1 << 24 };  // the bit FZ of FPCR
    static std::uint64_t get() {
        std::uint64_t mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void set(std::uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
    enum { MODE = 0 };
    static std::uint64_t get() { return 0; }
    static void set(std::uint64_t) {}
#endif
    const std::uint64_t before = get();

public:
    SubnormalsAreZero() { set(before | MODE); }
    ~SubnormalsAreZero() { set(before); }
    SubnormalsAreZero(const SubnormalsAreZero&) = delete;
};

}  // namespace gpumlp
