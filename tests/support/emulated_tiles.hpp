// The instructions of AMX that kernels/cpu/amx.hpp uses, in plain C++, in the order of additions that
// Intel's manual gives: of 16 pairs first all first products, and all second ones.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

struct Tile { std::uint8_t bytes[16][64]; };
inline Tile* tiles() {
    static thread_local Tile all[8];
    return all;
}
inline void configure(const void* all) {  // the palette, 8 tiles of 16 rows of 64 bytes
    const std::uint8_t* bytes = static_cast<const std::uint8_t*>(all);
    for (int i = 0; i < 8; ++i)
        if (bytes[0] != 1 || bytes[16 + 2 * i] != 64 || bytes[48 + i] != 16) __builtin_trap();
    std::memset(tiles(), 0, 8 * sizeof(Tile));
}
inline void load(int i, const void* from, long stride) {
    for (int r = 0; r < 16; ++r)
        std::memcpy(tiles()[i].bytes[r], static_cast<const char*>(from) + r * stride, 64);
}
inline void store(int i, void* to, long stride) {
    for (int r = 0; r < 16; ++r) std::memcpy(static_cast<char*>(to) + r * stride, tiles()[i].bytes[r], 64);
}
inline float half(const std::uint8_t* row, int j) {
    std::uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, row + 2 * j, 2);
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline void multiply(int out, int a, int b) {
    Tile *const t = tiles(), sum = t[out];
    for (int r = 0; r < 16; ++r)
        for (int c = 0; c < 16; ++c) {
            float pair[2] = {}, there;
            for (int k = 0; k < 16; ++k)
                for (int i = 0; i < 2; ++i)
                    pair[i] = std::fma(half(t[a].bytes[r], 2 * k + i), half(t[b].bytes[k], 2 * c + i), pair[i]);
            std::memcpy(&there, sum.bytes[r] + 4 * c, 4);
            there += pair[0] + pair[1];
            std::memcpy(t[out].bytes[r] + 4 * c, &there, 4);
        }
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(all) emulated::configure(all)
#define _tile_release() (void)0
#define _tile_zero(i) std::memset(&emulated::tiles()[i], 0, sizeof(emulated::Tile))
#define _tile_loadd(i, from, stride) emulated::load(i, from, stride)
#define _tile_stored(i, to, stride) emulated::store(i, to, stride)
#define _tile_dpbf16ps(out, a, b) emulated::multiply(out, a, b)
