// θ as kernels read and write it, from an array in its own type or split into two of 16 bits.
//
// The loader puts above this:  typedef … Theta;  real; or short, where θ is split: then `rounded`
//                                                has the upper 16 bits of each float, rounded to
//                                                nearest with ties away from zero, and θ's own
//                                                array the signed difference in the lower 16 bits
#pragma once
#include "common.cuh"

typedef unsigned short Upper;

// the entries of θ from i on
__device__ inline Pack<WIDE, real> theta_at(const real* theta, const void*, int64 i) {
    return pack<WIDE>(theta + i);
}
__device__ inline Pack<WIDE, real> theta_at(const short* theta, const void* rounded, int64 i) {
    const Pack<WIDE, short> lower = pack<WIDE>(theta + i);
    const Pack<WIDE, Upper> upper = pack<WIDE>((const Upper*)rounded + i);
    Pack<WIDE, real> x;
    for (int j = 0; j < WIDE; ++j) {
        union { unsigned bits; float value; } out;
        out.bits = ((unsigned)upper.at[j] << 16) + (unsigned)(int)lower.at[j];
        x.at[j] = out.value;
    }
    return x;
}

// write them, and the copy in T if T is not θ's type
__device__ inline void keep_theta(const Pack<WIDE, real>& x, real* theta, T* rounded, int64 i) {
    pack<WIDE>(theta + i) = x;
    if (sizeof(T) == sizeof(real)) return;
    unsigned long long word = 0;  // of the 4 entries: the compiler may split a store of 16-bit types
    for (int j = 0; j < WIDE; ++j) {
        union { unsigned short bits; T value; } out = {0};
        out.value = T(x.at[j]);
        word |= (unsigned long long)out.bits << 16 * j;
    }
    *(unsigned long long*)(rounded + i) = word;
}
// Rounding would carry some NaN to 0 or infinity: NaN stays a NaN, without its lower bits.
__device__ inline void keep_theta(const Pack<WIDE, real>& x, short* theta, T* rounded, int64 i) {
    Pack<WIDE, short> lower;
    Pack<WIDE, Upper> upper;
    for (int j = 0; j < WIDE; ++j) {
        union { float value; unsigned bits; } in;
        in.value = float(x.at[j]);
        const bool nan = (in.bits & 0x7fffffffu) > 0x7f800000u;
        upper.at[j] = Upper(nan ? in.bits >> 16 | 0x40u : (in.bits + 0x8000u) >> 16);
        lower.at[j] = short(nan ? 0u : in.bits);
    }
    pack<WIDE>(theta + i) = lower;
    pack<WIDE>((Upper*)rounded + i) = upper;
}
