// Products of tiles, for matrices that are not large: see `multiply` in products.hpp.
//
// A tile of out, TILE_ROWS rows by two vectors, stays in registers while a column of a times a row
// of b is added for each inner entry.  Blocks of a and b are copied in the order in which the tiles
// read them.  An entry of out is the same sum in the same order wherever it lies in a tile, so that
// a product may be cut in any way: its bits do not depend on the number of threads.
//
// Of 16-bit operands a tile reads pairs of neighbouring inner entries, and adds both products.
#pragma once

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "bfloat16.hpp"
#include "pieces.hpp"

namespace gpumlp {

// MOST_INNER: inner entries that are added up in registers.  A panel of b of so many stays in a core's
// first cache; with AVX-512 it comes from the second one, which is fast enough.
#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, TILE_ROWS = 12, MOST_INNER = 512 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, TILE_ROWS = 6, MOST_INNER = 256 };
#elif defined(__aarch64__)
enum { VECTOR_BYTES = 16, TILE_ROWS = 12, MOST_INNER = 256 };
#else
enum { VECTOR_BYTES = 16, TILE_ROWS = 6, MOST_INNER = 256 };
#endif

template <class real, int size> struct Vectors {  // 16-bit operands may lie at any even address
    typedef real type __attribute__((vector_size(size * sizeof(real)), aligned(2), may_alias));
};
template <class real> constexpr int WIDTH = VECTOR_BYTES / sizeof(real);  // entries of a vector
template <class real> constexpr int PANEL = 2 * WIDTH<real>;              // columns of a tile
template <class real> using Vector = typename Vectors<real, WIDTH<real>>::type;

// A matrix whose entry (i, j) is data[i row + j column].
template <class real> struct View {
    const real* data;
    int64 row, column;
    View from(int64 i, int64 j) const { return {data + i * row + j * column, row, column}; }
};

template <class real> inline Vector<real>& vector_at(real* data) {
    return *reinterpret_cast<Vector<real>*>(data);
}
template <class real> inline const Vector<real>& vector_at(const real* data) {
    return *reinterpret_cast<const Vector<real>*>(data);
}

// How a tile multiplies operands of type T: `Item` is what it reads of a and b at a time, for so many
// inner entries, and INNER entries are added up before the sum is stored.
template <class T> struct Operand {
    typedef T Item;
    enum { ENTRIES = 1, INNER = MOST_INNER };

    static Item load(const T* entries) { return *entries; }
    static Item item(const T* first, const T*) { return *first; }
    static void add(Vector<T>& sum, Item x, const Vector<Item>& row) { sum += x * row; }
};

// A product of two 16-bit numbers is exact in float.  The second of a pair is added first, as the
// instruction of AVX512_BF16 does it; that one also takes subnormal numbers for 0.
template <> struct Operand<bfloat16> {
    typedef std::uint32_t Item;
    enum { ENTRIES = 2, INNER = 1024 };

    static Item load(const bfloat16* entries) {
        Item pair;
        std::memcpy(&pair, entries, sizeof pair);
        return pair;
    }
    static Item item(const bfloat16* first, const bfloat16* second) {
        return first->bits | Item(second == nullptr ? 0 : second->bits) << 16;
    }
    static void add(Vector<float>& sum, Item x, const Vector<Item>& row) {
#if defined(__AVX512BF16__)
        const Vector<Item> same = Vector<Item>{} + x;
        sum = (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)same, (__m512bh)row);
#else
        constexpr Item SECOND = 0xffff0000;
        sum += elementary::from_bits<float>(x & SECOND) * (Vector<float>)(row & SECOND);
        sum += elementary::from_bits<float>(x << 16) * (Vector<float>)(row << 16);
#endif
    }
};
template <class T> using Item = typename Operand<T>::Item;

// to ← the first `count` entries of from, fewer than 2 size
template <int size, class real> inline void copy_few(real* to, const real* from, int64 count) {
    if (count & size) std::memcpy(to, from, size * sizeof(real)), to += size, from += size;
    if constexpr (size > 1) copy_few<size / 2>(to, from, count);
}

// Neighbouring columns of a row: so many vectors, and behind them half a one.
template <class E, int vectors, bool half> struct Strip {
    enum { COUNT = vectors * WIDTH<E> + half * WIDTH<E> / 2 };
    Vector<E> whole[vectors > 0 ? vectors : 1];
    typename Vectors<E, WIDTH<E> / 2>::type rest;

    void load(const E* from) {
        GPUMLP_UNROLL
        for (int v = 0; v < vectors; ++v) whole[v] = vector_at(from + v * WIDTH<E>);
        if constexpr (half) std::memcpy(&rest, from + vectors * WIDTH<E>, sizeof rest);
    }
    void store(E* to) const {
        GPUMLP_UNROLL
        for (int v = 0; v < vectors; ++v) vector_at(to + v * WIDTH<E>) = whole[v];
        if constexpr (half) std::memcpy(to + vectors * WIDTH<E>, &rest, sizeof rest);
    }
    // to ← α these + β to, entry by entry
    void add_to(E alpha, E beta, E* to) const {
        Strip sum = *this, there;
        if (beta != 0) there.load(to);
        GPUMLP_UNROLL
        for (int v = 0; v < vectors; ++v) {
            const Vector<E> scaled = alpha * whole[v];
            sum.whole[v] = beta != 0 ? scaled + beta * there.whole[v] : scaled;
        }
        if constexpr (half) {
            const auto scaled = alpha * rest;
            sum.rest = beta != 0 ? scaled + beta * there.rest : scaled;
        }
        sum.store(to);
    }
};

// out (rows, columns) ← α a b + β out, for `items` columns of a and rows of b, of so many vectors,
// and half a one.  copies: the rows of b are also copied to `panel`, one after the other.
template <class T, int rows, int vectors, bool half = false, bool copies = false>
__attribute__((noinline)) void tile(int64 items, const T* a, int64 a_row, int64 a_column,
                                    const Item<T>* b, int64 b_row, Arithmetic<T> alpha,
                                    Arithmetic<T> beta, Arithmetic<T>* out, int64 out_row,
                                    int64 columns, Item<T>* panel) {
    using real = Arithmetic<T>;
    typedef Strip<real, vectors, half> Sum;
    Sum sum[rows];
    GPUMLP_UNROLL
    for (int i = 0; i < rows; ++i) {
        __builtin_prefetch(out + i * out_row, 1);
        sum[i] = Sum{};
    }
    for (int64 l = 0; l < items; ++l, b += b_row) {
        Strip<Item<T>, vectors, half> row;
        row.load(b);
        if constexpr (copies) {
            GPUMLP_UNROLL
            for (int v = 0; v < vectors; ++v) __builtin_prefetch(b + AHEAD * b_row + v * WIDTH<real>);
            row.store(panel);
            panel += row.COUNT;
        }
        GPUMLP_UNROLL
        for (int i = 0; i < rows; ++i) {
            const Item<T> x = Operand<T>::load(a + i * a_row + l * a_column);
            GPUMLP_UNROLL
            for (int v = 0; v < vectors; ++v) Operand<T>::add(sum[i].whole[v], x, row.whole[v]);
            if constexpr (half) sum[i].rest += x * row.rest;
        }
    }
    if (columns == Sum::COUNT) {
        GPUMLP_UNROLL
        for (int i = 0; i < rows; ++i) sum[i].add_to(alpha, beta, out + i * out_row);
        return;
    }
    enum { MOST = vectors == 0 ? WIDTH<real> / 4 : (vectors + half) * WIDTH<real> / 2 };
    GPUMLP_UNROLL
    for (int i = 0; i < rows; ++i) {
        real part[Sum::COUNT] = {};
        if (beta != 0) copy_few<MOST>(part, out + i * out_row, columns);
        sum[i].add_to(alpha, beta, part);
        copy_few<MOST>(out + i * out_row, part, columns);
    }
}

// whether half a vector takes half of a whole one's time
template <class T> constexpr bool HALVES = VECTOR_BYTES == 64 && Operand<T>::ENTRIES == 1;

// `tile` of at most TILE_ROWS rows and PANEL columns; it copies b if a panel is given, whose tile
// is a whole one
template <class T, int rows = TILE_ROWS>
void tile_of(int64 count, int64 items, View<T> a, const Item<T>* b, int64 b_row,
             Arithmetic<T> alpha, Arithmetic<T> beta, Arithmetic<T>* out, int64 out_row,
             int64 columns, Item<T>* panel = nullptr) {
    enum { WIDE = WIDTH<Arithmetic<T>> };
    if constexpr (rows > 1)
        if (count < rows)
            return tile_of<T, rows - 1>(count, items, a, b, b_row, alpha, beta, out, out_row,
                                        columns);
    auto f = columns > WIDE ? tile<T, rows, 2> : tile<T, rows, 1>;
    if constexpr (HALVES<T>) {
        if (columns <= WIDE / 2) f = tile<T, rows, 0, true>;
        else if (columns > WIDE && columns <= WIDE + WIDE / 2) f = tile<T, rows, 1, true>;
    }
    if constexpr (rows == TILE_ROWS && Operand<T>::ENTRIES == 1)
        if (panel != nullptr) f = tile<T, rows, 2, false, true>;
    f(items, a.data, a.row, a.column, b, b_row, alpha, beta, out, out_row, columns, panel);
}

// The same; an `out` in 16 bits is not read.
template <class T>
void tile_of(int64 count, int64 items, View<T> a, const Item<T>* b, int64 b_row, float alpha,
             float, bfloat16* out, int64 out_row, int64 columns, Item<T>* = nullptr) {
    enum { EACH = PANEL<float> };
    float part[TILE_ROWS * EACH];
    tile_of<T>(count, items, a, b, b_row, alpha, 0, part, EACH, columns);
    for (int i = 0; i < least<int64>(count, TILE_ROWS); ++i)
        convert(part + i * EACH, out + i * out_row, columns);
}

}  // namespace gpumlp
