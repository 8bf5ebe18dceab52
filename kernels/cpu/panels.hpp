// Copies of blocks of matrices, in the order in which tiles read them.
#pragma once

#include <memory>

#include "tiles.hpp"

namespace gpumlp {

// Bytes of blocks of a and b that stay in a core's second cache, which has 1 MiB or more on
// processors with AVX-512, and 2 MiB with AMX.  gpumlp/backends/cpu/calls.py has the same numbers.
#if defined(__AVX512F__)
enum { BYTES_OF_A = 192 << 10, BYTES_OF_B = 512 << 10 };
#else
enum { BYTES_OF_A = 96 << 10, BYTES_OF_B = 256 << 10 };
#endif
#if defined(__AMX_BF16__)
enum { BYTES_OF_BOTH = 1536 << 10 };
#else
enum { BYTES_OF_BOTH = BYTES_OF_A + BYTES_OF_B };
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define GPUMLP_SHUFFLES

template <class real> constexpr int GROUP = 16 / sizeof(real);  // entries of 128 bits

// GROUP items of `size` rows: the parts of 128 bits hold rows 0, GROUP, 2 GROUP …
template <int size, class T, int... i>
inline typename Vectors<Item<T>, size>::type rows_of(const T* const* rows, int64 l,
                                                     std::integer_sequence<int, i...>) {
    if constexpr (size == GROUP<Item<T>>) {
        return *reinterpret_cast<const typename Vectors<Item<T>, size>::type*>(rows[0] + l);
    } else {
        const auto half = std::make_integer_sequence<int, size / 2>();
        return __builtin_shufflevector(rows_of<size / 2>(rows, l, half),
                                       rows_of<size / 2>(rows + size / 2, l, half), i...);
    }
}

// the lower (0) or upper (1) half of each part of a, and that of b, in turn
template <class real, int upper, int... i>
inline Vector<real> merged(Vector<real> a, Vector<real> b, std::integer_sequence<int, i...>) {
    constexpr int G = GROUP<real>;
    return __builtin_shufflevector(
        a, b, (i / G * G + i % G / 2 + upper * G / 2 + i % 2 * WIDTH<real>)...);
}

// to[t] ← the item of the entries from l + t ENTRIES of each row; `apart`: between the vectors in `to`
template <class T>
inline void transpose_group(const T* const* rows, int64 l, Item<T>* to, int64 apart) {
    using E = Item<T>;
    const auto all = std::make_integer_sequence<int, WIDTH<E>>();
    const auto low = [&](Vector<E> a, Vector<E> b) { return merged<E, 0>(a, b, all); };
    const auto high = [&](Vector<E> a, Vector<E> b) { return merged<E, 1>(a, b, all); };
    Vector<E> v[GROUP<E>];
    for (int g = 0; g < GROUP<E>; ++g) v[g] = rows_of<WIDTH<E>>(rows + g, l, all);
    if constexpr (GROUP<E> == 4) {
        const Vector<E> even = low(v[0], v[2]), odd = low(v[1], v[3]);
        const Vector<E> even2 = high(v[0], v[2]), odd2 = high(v[1], v[3]);
        v[0] = low(even, odd), v[1] = high(even, odd);
        v[2] = low(even2, odd2), v[3] = high(even2, odd2);
    } else {
        const Vector<E> first = low(v[0], v[1]);
        v[1] = high(v[0], v[1]), v[0] = first;
    }
    for (int g = 0; g < GROUP<E>; ++g) vector_at(to + g * apart) = v[g];
}

#if defined(__AVX512F__)
#define GPUMLP_SQUARES

// parts `first` and `second` of 128 bits of a, and the same of b
template <int first, int second, class real, int... i>
inline Vector<real> parts(Vector<real> a, Vector<real> b, std::integer_sequence<int, i...>) {
    constexpr int G = GROUP<real>;
    return __builtin_shufflevector(
        a, b, (i % G + (i / G % 2 == 0 ? first : second) * G + i / (2 * G) * WIDTH<real>)...);
}

// to[t] ← the item of the entries from l + t ENTRIES of each row, for t < WIDTH: each line is read
// once, so that rows whose distance is a power of two do not take the place of each other
template <class T>
inline void transpose_square(const T* const* rows, int64 l, Item<T>* to, int64 apart) {
    using E = Item<T>;
    constexpr int G = GROUP<E>;
    const auto all = std::make_integer_sequence<int, WIDTH<E>>();
    const auto low = [&](Vector<E> a, Vector<E> b) { return merged<E, 0>(a, b, all); };
    const auto high = [&](Vector<E> a, Vector<E> b) { return merged<E, 1>(a, b, all); };
    Vector<E> v[WIDTH<E>];
    GPUMLP_UNROLL
    for (int g = 0; g < WIDTH<E>; ++g) v[g] = *reinterpret_cast<const Vector<E>*>(rows[g] + l);
    GPUMLP_UNROLL
    for (int q = 0; q < WIDTH<E>; q += G) {
        if constexpr (G == 4) {
            const Vector<E> even = low(v[q], v[q + 2]), odd = low(v[q + 1], v[q + 3]);
            const Vector<E> even2 = high(v[q], v[q + 2]), odd2 = high(v[q + 1], v[q + 3]);
            v[q] = low(even, odd), v[q + 1] = high(even, odd);
            v[q + 2] = low(even2, odd2), v[q + 3] = high(even2, odd2);
        } else {
            const Vector<E> first = low(v[q], v[q + 1]);
            v[q + 1] = high(v[q], v[q + 1]), v[q] = first;
        }
    }
    GPUMLP_UNROLL
    for (int g = 0; g < G; ++g) {  // now part p of v[q G + g] holds the column p G + g
        const Vector<E> a = parts<0, 1, E>(v[g], v[G + g], all);
        const Vector<E> b = parts<2, 3, E>(v[g], v[G + g], all);
        const Vector<E> c = parts<0, 1, E>(v[2 * G + g], v[3 * G + g], all);
        const Vector<E> d = parts<2, 3, E>(v[2 * G + g], v[3 * G + g], all);
        vector_at(to + g * apart) = parts<0, 2, E>(a, c, all);
        vector_at(to + (G + g) * apart) = parts<1, 3, E>(a, c, all);
        vector_at(to + (2 * G + g) * apart) = parts<0, 2, E>(b, d, all);
        vector_at(to + (3 * G + g) * apart) = parts<1, 3, E>(b, d, all);
    }
}
#endif
#endif
#endif

// the number of items of so many inner entries: behind an odd last one of 16 bits is 0
template <class T> int64 items_of(int64 entries) {
    return (entries + Operand<T>::ENTRIES - 1) / Operand<T>::ENTRIES;
}

// the item of the inner entries from l on, of k; `apart`: between neighbouring ones
template <class T> inline Item<T> item_at(const T* data, int64 l, int64 k, int64 apart) {
    return Operand<T>::item(data + l * apart, l + 1 < k ? data + (l + 1) * apart : nullptr);
}

// to ← the items of `count` neighbouring columns, of the inner entry l in `row` and the next, of k
template <int count, class T>
inline void copy_items(const T* row, int64 l, int64 k, int64 apart, Item<T>* to) {
    if constexpr (!IS_16_BIT<T>)
        std::memcpy(to, row, count * sizeof(T));
    else if (l + 1 < k)
        for (int j = 0; j < count; ++j) to[j] = Operand<T>::item(row + j, row + j + apart);
    else
        for (int j = 0; j < count; ++j) to[j] = Operand<T>::item(row + j, nullptr);
}

// panel (items, PANEL) ← the first columns of b, which is a transpose; beyond them is anything
template <class T> void transpose_panel(View<T> b, int64 k, int64 columns, Item<T>* panel) {
    using E = Item<T>;
    enum { ENTRIES = Operand<T>::ENTRIES };
    int64 done = 0;
#ifdef GPUMLP_SHUFFLES
    const T* rows[PANEL<E>];  // of the transpose
    for (int64 j = 0; j < PANEL<E>; ++j) rows[j] = b.data + least<int64>(j, columns - 1) * b.column;
#ifdef GPUMLP_SQUARES
    for (; done + WIDTH<E> * ENTRIES <= k; done += WIDTH<E> * ENTRIES)
        for (int j = 0; j < columns; j += WIDTH<E>) {
            if (done + 3 * WIDTH<E> * ENTRIES <= k)
                for (int r = 0; r < WIDTH<E>; ++r) __builtin_prefetch(rows[j + r] + done + 2 * WIDTH<E> * ENTRIES);
            transpose_square(rows + j, done, panel + done / ENTRIES * PANEL<E> + j, PANEL<E>);
        }
#endif
    for (; done + GROUP<E> * ENTRIES <= k; done += GROUP<E> * ENTRIES)
        for (int j = 0; j < columns; j += WIDTH<E>)
            transpose_group(rows + j, done, panel + done / ENTRIES * PANEL<E> + j, PANEL<E>);
#endif
    for (int64 l = done; l < k; l += ENTRIES)
        for (int64 j = 0; j < columns; ++j)
            panel[l / ENTRIES * PANEL<E> + j] = item_at(b.data + j * b.column, l, k, b.row);
}

// panels (columns / PANEL, items, PANEL) ← b; beyond its columns is anything
template <class T> void copy_panels(View<T> b, int64 k, int64 columns, Item<T>* panels) {
    using E = Item<T>;
    const int64 items = items_of<T>(k);
    if (b.column == 1) {
        for (int64 i = 0; i < items; ++i) {
            const int64 l = i * Operand<T>::ENTRIES;
            const T* const row = b.data + l * b.row;
            E* panel = panels + i * PANEL<E>;
            int64 j = 0;
            for (; j + PANEL<E> <= columns; j += PANEL<E>, panel += items * PANEL<E>)
                copy_items<PANEL<E>>(row + j, l, k, b.row, panel);
            if constexpr (IS_16_BIT<T>)
                for (int64 c = 0; j + c < columns; ++c) panel[c] = item_at(row + j + c, 0, k - l, b.row);
            else
                copy_few<WIDTH<E>>(panel, row + j, columns - j);
        }
        return;
    }
    for (int64 j = 0; j < columns; j += PANEL<E>, panels += items * PANEL<E>)
        transpose_panel(b.from(0, j), k, least<int64>(PANEL<E>, columns - j), panels);
}

// whether `transpose_tile` is there
#ifdef GPUMLP_SQUARES
template <class E> constexpr bool TRANSPOSES_TILES = WIDTH<E> >= TILE_ROWS;
#else
template <class E> constexpr bool TRANSPOSES_TILES = false;
#endif

// tile (items, TILE_ROWS) ← the first TILE_ROWS rows of a, whose entries are neighbours, as far as
// squares reach; the number of the entries of each row
template <class T> inline int64 transpose_tile(View<T> a, int64 k, Item<T>* tile) {
    int64 done = 0;
    if constexpr (TRANSPOSES_TILES<Item<T>>) {
        enum { ENTRIES = Operand<T>::ENTRIES, SIDE = WIDTH<Item<T>> };
        const T* rows[SIDE];
        for (int64 i = 0; i < SIDE; ++i) rows[i] = a.data + least<int64>(i, TILE_ROWS - 1) * a.row;
        Item<T> square[SIDE * SIDE];
        for (; done + SIDE * ENTRIES <= k; done += SIDE * ENTRIES) {
            transpose_square(rows, done, square, SIDE);
            GPUMLP_UNROLL
            for (int l = 0; l < SIDE; ++l, tile += TILE_ROWS)
                std::memcpy(tile, square + l * SIDE, TILE_ROWS * sizeof(Item<T>));
        }
    }
    return done;
}

// tiles (rows / TILE_ROWS, items, TILE_ROWS) ← a
template <class T> void copy_tiles(View<T> a, int64 rows, int64 k, Item<T>* tiles) {
    // whole lines of a row of aᵀ
    enum { ENTRIES = Operand<T>::ENTRIES, SOME = 4 * TILE_ROWS };
    const int64 apart = items_of<T>(k) * TILE_ROWS;
    int64 i = 0;
    for (; a.row == 1 && i + SOME <= rows; i += SOME)
        for (int64 l = 0; l < k; l += ENTRIES) {
            for (int64 t = 0; t < SOME; t += int64(LINE / sizeof(T)))
                __builtin_prefetch(a.from(i + t, l + AHEAD * ENTRIES).data);
            for (int64 t = 0; t < SOME; t += TILE_ROWS)
                copy_items<TILE_ROWS>(a.from(i + t, l).data, l, k, a.column,
                                      tiles + (i + t) / TILE_ROWS * apart + l / ENTRIES * TILE_ROWS);
        }
    for (; i < rows; i += TILE_ROWS) {
        const int count = int(least<int64>(TILE_ROWS, rows - i));
        const T* const column = a.from(i, 0).data;
        Item<T>* const tile = tiles + i / TILE_ROWS * apart;
        int64 l = count == TILE_ROWS && a.column == 1 ? transpose_tile(a.from(i, 0), k, tile) : 0;
        Item<T>* to = tile + l / ENTRIES * TILE_ROWS;
        for (; l < k; l += ENTRIES, to += TILE_ROWS)
            if (count == TILE_ROWS && a.row == 1)
                copy_items<TILE_ROWS>(column + l * a.column, l, k, a.column, to);
            else
                for (int t = 0; t < count; ++t) to[t] = item_at(column + t * a.row, l, k, a.column);
    }
}

// Memory of this thread for a block of b and, behind it, one of a.  It begins with a cache line.
inline void* blocks() {
    static thread_local std::unique_ptr<char[]> memory;
    if (!memory) memory.reset(new char[BYTES_OF_BOTH + LINE]);
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory.get());
    return reinterpret_cast<void*>((begin + LINE - 1) / LINE * LINE);
}

}  // namespace gpumlp
