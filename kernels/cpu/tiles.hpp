// Products of matrices that are not large.
//
// A tile of out, TILE_ROWS rows by two vectors, stays in registers while a column of a times a row
// of b is added for each inner entry.  Blocks of a and b are copied in the order in which the tiles
// read them.  An entry of out is the same sum in the same order wherever it lies in a tile, so that
// a product may be cut in any way: its bits do not depend on the number of threads.
#pragma once

#include <memory>

#include "pieces.hpp"

namespace gpumlp {

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, TILE_ROWS = 12 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, TILE_ROWS = 6 };
#elif defined(__aarch64__)
enum { VECTOR_BYTES = 16, TILE_ROWS = 12 };
#else
enum { VECTOR_BYTES = 16, TILE_ROWS = 6 };
#endif

template <class real, int size> struct Vectors {
    typedef real type
        __attribute__((vector_size(size * sizeof(real)), aligned(alignof(real)), may_alias));
};
template <class real> constexpr int WIDTH = VECTOR_BYTES / sizeof(real);  // entries of a vector
template <class real> constexpr int PANEL = 2 * WIDTH<real>;              // columns of a tile
template <class real> using Vector = typename Vectors<real, WIDTH<real>>::type;

// Inner entries and bytes of blocks that stay in a core's caches: a panel of b in the first, blocks
// of a and b in the second.
enum { INNER = 256, BYTES_OF_A = 96 << 10, BYTES_OF_B = 256 << 10 };

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

// to ← the first `count` entries of from, fewer than 2 size
template <int size, class real> inline void copy_few(real* to, const real* from, int64 count) {
    if (count & size) std::memcpy(to, from, size * sizeof(real)), to += size, from += size;
    if constexpr (size > 1) copy_few<size / 2>(to, from, count);
}

// to ← α value + β to, entry by entry, for as many vectors as there are in `value`
template <class real, int vectors>
inline void add_vectors(const Vector<real> (&value)[vectors], real alpha, real beta, real* to) {
    GPUMLP_UNROLL
    for (int v = 0; v < vectors; ++v) {
        Vector<real>& there = vector_at(to + v * WIDTH<real>);
        const Vector<real> scaled = alpha * value[v];
        there = beta != 0 ? scaled + beta * there : scaled;
    }
}

// out (rows, columns) ← α a b + β out, for a (rows, k) and b with rows of so many vectors
template <class real, int rows, int vectors>
__attribute__((noinline)) void tile(int64 k, View<real> a, const real* b, real alpha, real beta,
                                    real* out, int64 out_row, int64 columns) {
    Vector<real> sum[rows][vectors];
    GPUMLP_UNROLL
    for (int i = 0; i < rows; ++i) {
        __builtin_prefetch(out + i * out_row, 1);
        GPUMLP_UNROLL
        for (int v = 0; v < vectors; ++v) sum[i][v] = Vector<real>{};
    }
    for (int64 l = 0; l < k; ++l, b += PANEL<real>) {
        Vector<real> row[vectors];
        GPUMLP_UNROLL
        for (int v = 0; v < vectors; ++v) row[v] = vector_at(b + v * WIDTH<real>);
        GPUMLP_UNROLL
        for (int i = 0; i < rows; ++i) {
            const real x = a.data[i * a.row + l * a.column];
            GPUMLP_UNROLL
            for (int v = 0; v < vectors; ++v) sum[i][v] += x * row[v];
        }
    }
    if (columns == vectors * WIDTH<real>) {
        GPUMLP_UNROLL
        for (int i = 0; i < rows; ++i) add_vectors<real>(sum[i], alpha, beta, out + i * out_row);
        return;
    }
    GPUMLP_UNROLL
    for (int i = 0; i < rows; ++i) {
        real part[vectors * WIDTH<real>];
        if (beta != 0) copy_few<vectors * WIDTH<real> / 2>(part, out + i * out_row, columns);
        add_vectors<real>(sum[i], alpha, beta, part);
        copy_few<vectors * WIDTH<real> / 2>(out + i * out_row, part, columns);
    }
}

// `tile` of at most TILE_ROWS rows and PANEL columns
template <class real, int rows = TILE_ROWS>
void tile_of(int64 count, int64 k, View<real> a, const real* b, real alpha, real beta, real* out,
             int64 out_row, int64 columns) {
    if constexpr (rows > 1)
        if (count < rows)
            return tile_of<real, rows - 1>(count, k, a, b, alpha, beta, out, out_row, columns);
    if (columns > WIDTH<real>) tile<real, rows, 2>(k, a, b, alpha, beta, out, out_row, columns);
    else tile<real, rows, 1>(k, a, b, alpha, beta, out, out_row, columns);
}

// ---- copies of blocks, in the order of the tiles

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define GPUMLP_SHUFFLES

template <class real> constexpr int GROUP = 16 / sizeof(real);  // entries of 128 bits

// GROUP entries of `size` rows: the parts of 128 bits hold rows 0, GROUP, 2 GROUP …
template <class real, int size, int... i>
inline typename Vectors<real, size>::type rows_of(const real* const* rows, int64 l,
                                                  std::integer_sequence<int, i...>) {
    if constexpr (size == GROUP<real>) {
        return *reinterpret_cast<const typename Vectors<real, size>::type*>(rows[0] + l);
    } else {
        const auto half = std::make_integer_sequence<int, size / 2>();
        return __builtin_shufflevector(rows_of<real, size / 2>(rows, l, half),
                                       rows_of<real, size / 2>(rows + size / 2, l, half), i...);
    }
}

// the lower (0) or upper (1) half of each part of a, and that of b, in turn
template <class real, int upper, int... i>
inline Vector<real> merged(Vector<real> a, Vector<real> b, std::integer_sequence<int, i...>) {
    constexpr int G = GROUP<real>;
    return __builtin_shufflevector(
        a, b, (i / G * G + i % G / 2 + upper * G / 2 + i % 2 * WIDTH<real>)...);
}

// to[t] ← entry l + t of each of the rows; `apart`: between the vectors in `to`
template <class real>
inline void transpose_group(const real* const* rows, int64 l, real* to, int64 apart) {
    const auto all = std::make_integer_sequence<int, WIDTH<real>>();
    const auto low = [&](Vector<real> a, Vector<real> b) { return merged<real, 0>(a, b, all); };
    const auto high = [&](Vector<real> a, Vector<real> b) { return merged<real, 1>(a, b, all); };
    Vector<real> v[GROUP<real>];
    for (int g = 0; g < GROUP<real>; ++g) v[g] = rows_of<real, WIDTH<real>>(rows + g, l, all);
    if constexpr (GROUP<real> == 4) {
        const Vector<real> even = low(v[0], v[2]), odd = low(v[1], v[3]);
        const Vector<real> even2 = high(v[0], v[2]), odd2 = high(v[1], v[3]);
        v[0] = low(even, odd), v[1] = high(even, odd);
        v[2] = low(even2, odd2), v[3] = high(even2, odd2);
    } else {
        const Vector<real> first = low(v[0], v[1]);
        v[1] = high(v[0], v[1]), v[0] = first;
    }
    for (int g = 0; g < GROUP<real>; ++g) vector_at(to + g * apart) = v[g];
}
#endif
#endif

// panel (k, PANEL) ← the first columns of b, which is a transpose; beyond them is anything
template <class real> void transpose_panel(View<real> b, int64 k, int64 columns, real* panel) {
    int64 done = 0;
#ifdef GPUMLP_SHUFFLES
    const real* rows[PANEL<real>];  // of the transpose
    for (int64 j = 0; j < PANEL<real>; ++j)
        rows[j] = b.data + least<int64>(j, columns - 1) * b.column;
    for (; done + GROUP<real> <= k; done += GROUP<real>)
        for (int j = 0; j < columns; j += WIDTH<real>)
            transpose_group(rows + j, done, panel + done * PANEL<real> + j, PANEL<real>);
#endif
    for (int64 l = done; l < k; ++l)
        for (int64 j = 0; j < columns; ++j)
            panel[l * PANEL<real> + j] = b.data[l * b.row + j * b.column];
}

// panels (columns / PANEL, k, PANEL) ← b; beyond its columns is anything
template <class real> void copy_panels(View<real> b, int64 k, int64 columns, real* panels) {
    if (b.column == 1) {
        for (int64 l = 0; l < k; ++l) {
            const real* const row = b.data + l * b.row;
            real* panel = panels + l * PANEL<real>;
            int64 j = 0;
            for (; j + PANEL<real> <= columns; j += PANEL<real>, panel += k * PANEL<real>)
                std::memcpy(panel, row + j, PANEL<real> * sizeof(real));
            copy_few<WIDTH<real>>(panel, row + j, columns - j);
        }
        return;
    }
    for (int64 j = 0; j < columns; j += PANEL<real>, panels += k * PANEL<real>)
        transpose_panel(b.from(0, j), k, least<int64>(PANEL<real>, columns - j), panels);
}

// tiles (rows / TILE_ROWS, k, TILE_ROWS) ← a, which is a transpose
template <class real> void copy_tiles(View<real> a, int64 rows, int64 k, real* tiles) {
    for (int64 i = 0; i < rows; i += TILE_ROWS) {
        const int count = int(least<int64>(TILE_ROWS, rows - i));
        const real* const column = a.from(i, 0).data;
        for (int64 l = 0; l < k; ++l, tiles += TILE_ROWS)
            if (count == TILE_ROWS)
                std::memcpy(tiles, column + l * a.column, TILE_ROWS * sizeof(real));
            else
                for (int t = 0; t < count; ++t) tiles[t] = column[t + l * a.column];
    }
}

// Memory of this thread for a block of b and, behind it, one of a.  It begins with a cache line.
template <class real> real* blocks() {
    constexpr int64 line = 64;
    static thread_local std::unique_ptr<char[]> memory;
    if (!memory) memory.reset(new char[BYTES_OF_A + BYTES_OF_B + line]);
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory.get());
    return reinterpret_cast<real*>((begin + line - 1) / line * line);
}

// out (m, n) ← α a b + β out, for a (m, k)
template <class real>
void multiply(int64 m, int64 n, int64 k, View<real> a, View<real> b, real alpha, real beta,
              real* out, int64 out_row) {
    real *const panels = blocks<real>(), *const tiles = panels + BYTES_OF_B / sizeof(real);
    for (int64 l = 0; l == 0 || l < k; l += INNER) {
        const int64 inner = least<int64>(INNER, k - l), bytes = (inner + (k == 0)) * sizeof(real);
        const int64 most_columns = BYTES_OF_B / bytes / PANEL<real> * PANEL<real>;
        const int64 most_rows = BYTES_OF_A / bytes / TILE_ROWS * TILE_ROWS;
        const real keep = l == 0 ? beta : real(1);
        for (int64 j = 0; j < n; j += most_columns) {
            const int64 width = least(most_columns, n - j);
            copy_panels(b.from(l, j), inner, width, panels);
            for (int64 i = 0; i < m; i += most_rows) {
                const int64 height = least(most_rows, m - i);
                // a copy of a transpose is worth its time if some panels read it
                const bool copied = a.column != 1 && width > 4 * PANEL<real>;
                if (copied) copy_tiles(a.from(i, l), height, inner, tiles);
                for (int64 c = 0; c < width; c += PANEL<real>)
                    for (int64 r = 0; r < height; r += TILE_ROWS) {
                        const View<real> left = copied ? View<real>{tiles + r * inner, 1, TILE_ROWS}
                                                       : a.from(i + r, l);
                        tile_of<real>(height - r, inner, left, panels + c * inner,
                                      alpha, keep, out + (i + r) * out_row + j + c, out_row,
                                      least<int64>(PANEL<real>, width - c));
                    }
            }
        }
    }
}

}  // namespace gpumlp
