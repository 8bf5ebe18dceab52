// Products on the matrix tiles of processors with Intel's AMX.
//
// A tile register holds 16 rows of 64 bytes.  One instruction adds to 16 × 16 floats the product of two
// tiles of bfloat16 with 32 inner entries: 16 times the work of AVX-512 on floats in the same time.
//
// A float is the exact sum of three numbers in bfloat16, h + m + l, each with 8 of its 24 digits.  Of
// the nine products of two such sums the three smallest, below 2⁻²³ of the whole, are left out.  The other
// six take less time than a product of floats by AVX-512.  The result has a smaller error, because
// fewer additions are rounded.  Parts below 10⁻³⁸ are taken for 0, so that a number below 10⁻³³ loses
// digits.
//
// Here a matrix is a View whose column is the inner index of the product: that of b is its transpose.
// The order in which a sum is added up depends on k alone.
#pragma once

#include "panels.hpp"

#if defined(__AMX_BF16__)

#include <atomic>

namespace gpumlp {
namespace amx {

// rows or columns of a tile and of two tiles; inner entries of a tile; bytes of a tile and of one row
enum { SIDE = 16, TWO = 32, DEPTH = 32, TILE_BYTES = 1024, ROW_BYTES = 64 };
// parts of a number, and inner entries that are added up before the sums are stored
template <class T> constexpr int PARTS = IS_16_BIT<T> ? 1 : 3;
template <class T> constexpr int64 MOST_ENTRIES = IS_16_BIT<T> ? int64(Operand<T>::INNER) : int64(MOST_INNER);

typedef Vector<std::uint32_t> Words;
typedef Vector<float> Floats;

// The tiles are configured from here to the end of the scope.
struct Configured {
    Configured() {
        struct { std::uint8_t palette, unused[15]; std::uint16_t bytes[16]; std::uint8_t rows[16]; } all = {};
        all.palette = 1;
        for (int i = 0; i < 8; ++i) all.bytes[i] = ROW_BYTES, all.rows[i] = SIDE;
        _tile_loadconfig(&all);
    }
    ~Configured() { _tile_release(); }
};

// ---- copies --------------------------------------------------------------------------------------

inline std::uint32_t mask(int64 count, int64 most) {
    return count >= most ? ~0u >> (32 - most) : count > 0 ? (1u << count) - 1 : 0;
}
// the first `count` of 16 or 32 entries, and 0
inline Floats floats(const float* from, int64 count) {
    return (Floats)_mm512_maskz_loadu_ps(__mmask16(mask(count, SIDE)), from);
}
inline Words halves(const bfloat16* from, int64 count) {
    return (Words)_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(__mmask16(mask(count, SIDE)), from));
}
inline Words pairs(const bfloat16* from, int64 count) {
    return (Words)_mm512_maskz_loadu_epi16(mask(count, DEPTH), from);
}

// half of the last digit of h below the largest float: h is infinite from there on
constexpr float FAR = 0x1.ffp127f;
constexpr std::uint32_t UPPER = 0xffff0000;
// the upper halves of the words of a, each below that of b
inline Words across(Words a, Words b) { return a >> 16 | (b & UPPER); }
// the upper halves of the words of a, and behind them those of b
template <int... i> inline Words along(Words a, Words b, std::integer_sequence<int, i...>) {
    typedef Vectors<std::uint16_t, DEPTH>::type Halves;
    return (Words)__builtin_shufflevector((Halves)a, (Halves)b, (2 * i + 1)...);
}

// The parts of floats, one after the other, in the upper halves of words.
struct Split {
    Floats rest;

    Words high() {
        const Words h = (Words)rest + 0x8000;
        rest -= (Floats)(h & UPPER);
        return h;
    }
    Words middle() { return high(); }
    Words low() const { return (Words)rest; }
};

// tile ← items of 16 rows and 32 inner entries of x, by rows or else by columns; beyond the counts 0.
// NaN if an entry is infinite, or nearly so, or NaN; else 0.
template <bool by_rows> Floats copy_tile(View<float> x, int64 rows, int64 inner, char* tile) {
    const auto row = [&](int h, int t) {  // 16 neighbours in memory, of the half h of the inner entries
        if (x.column == 1) return floats(x.from(t, SIDE * h).data, t < rows ? inner - SIDE * h : 0);
        return floats(x.from(0, SIDE * h + t).data, SIDE * h + t < inner ? rows : 0);
    };
    const auto split = [&](const auto& get) {
        const auto items = [](Words a, Words b) {
            return by_rows ? along(a, b, std::make_integer_sequence<int, DEPTH>()) : across(a, b);
        };
        Floats first = {}, second = {};  // a single sum would have to be waited for
        for (int p = 0; p < SIDE; ++p, tile += ROW_BYTES) {
            Split a = {by_rows ? get(0, p) : get(p / 8, 2 * p % SIDE)};
            Split b = {by_rows ? get(1, p) : get(p / 8, 2 * p % SIDE + 1)};
            *reinterpret_cast<Words*>(tile) = items(a.high(), b.high());
            first += 0 * a.rest, second += 0 * b.rest;
            *reinterpret_cast<Words*>(tile + 2 * TILE_BYTES) = items(a.middle(), b.middle());
            *reinterpret_cast<Words*>(tile + 4 * TILE_BYTES) = items(a.low(), b.low());
        }
        return first + second;
    };
    if ((x.column == 1) == by_rows) return split(row);
    alignas(64) float from[SIDE][SIDE], to[2][SIDE][SIDE];
    const float* lines[SIDE];
    for (int h = 0; h < 2; ++h) {
        for (int t = 0; t < SIDE; ++t) vector_at(from[t]) = row(h, t), lines[t] = from[t];
        transpose_square(lines, 0, to[h][0], SIDE);
    }
    return split([&](int h, int t) { return vector_at(to[h][t]); });
}

template <bool by_rows> Floats copy_tile(View<bfloat16> x, int64 rows, int64 inner, char* tile) {
    const auto row = [&](int t) {
        if (x.column == 1) return pairs(x.from(t, 0).data, t < rows ? inner : 0);
        const Words below = halves(x.from(0, 2 * t).data, 2 * t < inner ? rows : 0);
        return below | halves(x.from(0, 2 * t + 1).data, 2 * t + 1 < inner ? rows : 0) << 16;
    };
    const bool as_it_lies = (x.column == 1) == by_rows;
    alignas(64) float square[SIDE][SIDE];
    const float* lines[SIDE];
    for (int t = 0; t < SIDE; ++t) {
        lines[t] = square[t];
        char* const to = as_it_lies ? tile + t * ROW_BYTES : reinterpret_cast<char*>(square[t]);
        *reinterpret_cast<Words*>(to) = row(t);
    }
    if (!as_it_lies) transpose_square(lines, 0, reinterpret_cast<float*>(tile), SIDE);
    return Floats{};
}

// the bytes of two tiles' rows, of all inner entries
template <class T> int64 bytes_of_two(int64 inner) { return (inner + DEPTH - 1) / DEPTH * PARTS<T> * 2 * TILE_BYTES; }

// to (rows / 32, inner / 32, PARTS, 2 tiles) ← x; whether all entries are finite, and below FAR
template <bool by_rows, class T> bool copy_tiles(View<T> x, int64 rows, int64 inner, char* to) {
    Floats sum = {};
    const auto copy = [&](int64 i, int64 l) {
        char* const tile = to + i / TWO * bytes_of_two<T>(inner) + bytes_of_two<T>(l) + i / SIDE % 2 * TILE_BYTES;
        sum += copy_tile<by_rows>(x.from(i, l), rows - i, inner - l, tile);
        _tile_dpbf16ps(0, 4, 6);  // the tiles' unit sleeps after 0.3 µs, and takes 0.5 µs to wake
    };
    if (x.column == 1) {  // in the order of memory
        for (int64 i = 0; i < rows; i += SIDE)
            for (int64 l = 0; l < inner; l += DEPTH) copy(i, l);
    } else {
        for (int64 l = 0; l < inner; l += DEPTH)
            for (int64 i = 0; i < rows; i += SIDE) copy(i, l);
    }
    bool finite = true;
    for (int t = 0; t < SIDE; ++t) finite &= sum[t] == 0;
    return finite;
}

// ---- tiles ---------------------------------------------------------------------------------------

// Tiles 0 to 3 are sums, 4 and 5 rows of a, 6 and 7 columns of b.
template <int rows> inline void load_rows(const char* a) {
    _tile_loadd(4, a, ROW_BYTES);
    if constexpr (rows > 1) _tile_loadd(5, a + TILE_BYTES, ROW_BYTES);
}
template <int columns> inline void load_columns(const char* b) {
    _tile_loadd(6, b, ROW_BYTES);
    if constexpr (columns > 1) _tile_loadd(7, b + TILE_BYTES, ROW_BYTES);
}
template <int rows, int columns> inline void add_products() {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (columns > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (rows > 1) _tile_dpbf16ps(2, 5, 6);
    if constexpr (rows > 1 && columns > 1) _tile_dpbf16ps(3, 5, 7);
}

// out ← the product of so many tiles
template <class T, int rows, int columns>
void multiply_tiles(int64 steps, const char* a, const char* b, float* out, int64 out_row) {
    // a compiler may not know that tiles are loaded from memory and stored there
    std::atomic_signal_fence(std::memory_order_seq_cst);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    enum { NEXT = 2 * TILE_BYTES };  // the next part
    for (int64 s = 0; s < steps; ++s, a += PARTS<T> * NEXT, b += PARTS<T> * NEXT) {
        load_rows<rows>(a);  // h h
        load_columns<columns>(b);
        add_products<rows, columns>();
        if constexpr (PARTS<T> == 1) continue;
        load_columns<columns>(b + NEXT);  // h m
        add_products<rows, columns>();
        load_rows<rows>(a + NEXT);  // m m
        add_products<rows, columns>();
        load_columns<columns>(b);  // m h
        add_products<rows, columns>();
        load_rows<rows>(a + 2 * NEXT);  // l h
        add_products<rows, columns>();
        load_rows<rows>(a);  // h l
        load_columns<columns>(b + 2 * NEXT);
        add_products<rows, columns>();
    }
    const int64 bytes = out_row * int64(sizeof(float));
    float* const below = out + SIDE * out_row;
    _tile_stored(0, out, bytes);
    if constexpr (columns > 1) _tile_stored(1, out + SIDE, bytes);
    if constexpr (rows > 1) _tile_stored(2, below, bytes);
    if constexpr (rows > 1 && columns > 1) _tile_stored(3, below + SIDE, bytes);
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

// out (rows, columns) ← α a b + β out, for at most 32 rows and columns
template <class T, class Out>
void multiply_two(int64 rows, int64 columns, int64 steps, const char* a, const char* b, float alpha,
                  float beta, Out* out, int64 out_row) {
    const auto f = rows > SIDE ? columns > SIDE ? multiply_tiles<T, 2, 2> : multiply_tiles<T, 2, 1>
                               : columns > SIDE ? multiply_tiles<T, 1, 2> : multiply_tiles<T, 1, 1>;
    if constexpr (!IS_16_BIT<Out>)
        if (alpha == 1 && beta == 0 && rows % SIDE == 0 && columns % SIDE == 0)
            return f(steps, a, b, out, out_row);
    alignas(64) float sum[TWO * TWO];
    f(steps, a, b, sum, TWO);
    for (int64 i = 0; i < rows; ++i) {
        Out* const there = out + i * out_row;
        const float* const found = sum + i * TWO;
        if (beta == 0)
            for (int64 j = 0; j < columns; ++j) there[j] = alpha * found[j];
        else
            for (int64 j = 0; j < columns; ++j) there[j] = alpha * found[j] + beta * there[j];
    }
}

// `multiply` of products.hpp.  false: there are entries of FAR or more, or NaN, and the sums of their
// rows and columns are NaN, which they need not be.
template <class T, class Out>
bool multiply(int64 m, int64 n, int64 k, View<T> a, View<T> b, float alpha, float beta, Out* out,
              int64 out_row) {
    const Configured configured;
    char *const right = static_cast<char*>(blocks()), *const left = right + BYTES_OF_BOTH / 2;
    bool finite = true;
    const int64 count = k > 0 ? (k + MOST_ENTRIES<T> - 1) / MOST_ENTRIES<T> : 1;
    const int64 block = ((k + count - 1) / count + DEPTH - 1) / DEPTH * DEPTH;
    for (int64 l = 0; l == 0 || l < k; l += block) {
        const int64 inner = least(block, k - l), bytes = bytes_of_two<T>(inner);
        const int64 most = k > 0 ? BYTES_OF_BOTH / 2 / bytes * TWO : m + n;
        const float keep = l == 0 ? beta : 1.0f;
        for (int64 j = 0; j < n; j += most) {
            const int64 width = least(most, n - j);
            const View<T> columns = b.from(l, j);
            finite &= copy_tiles<false>(View<T>{columns.data, b.column, b.row}, width, inner, right);
            for (int64 i = 0; i < m; i += most) {
                const int64 height = least(most, m - i);
                if (j == 0 || most < m) finite &= copy_tiles<true>(a.from(i, l), height, inner, left);
                for (int64 c = 0; c < width; c += TWO)
                    for (int64 r = 0; r < height; r += TWO)
                        multiply_two<T>(least<int64>(TWO, height - r), least<int64>(TWO, width - c),
                                        (inner + DEPTH - 1) / DEPTH, left + r / TWO * bytes,
                                        right + c / TWO * bytes, alpha, keep,
                                        out + (i + r) * out_row + j + c, out_row);
            }
        }
    }
    return finite || IS_16_BIT<T>;
}

// Whether it takes less time than `multiply` of products.hpp: floats are split into parts first.
template <class T> bool repays(int64 m, int64 n, int64 k) {
    return IS_16_BIT<T> || (k >= 2 * DEPTH && 2 * m * n >= 160 * (m + n));
}

// f(i, count) for the rows that have entries of FAR or more, or NaN, neighbouring ones together
template <class T, class F> void over_far(View<T> x, int64 rows, int64 inner, const F& f) {
    for (int64 i = 0, begin = 0; i <= rows; ++i) {
        bool near = true;
        for (int64 l = 0; i < rows && l < inner; ++l) near &= fabs(float(*x.from(i, l).data)) < FAR;
        if (!near) continue;
        if (begin < i) f(begin, i - begin);
        begin = i + 1;
    }
}

}  // namespace amx
}  // namespace gpumlp

#endif
