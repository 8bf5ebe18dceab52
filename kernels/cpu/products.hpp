// Matrix products: by tiles, or by NumPy's BLAS if they are large.
#pragma once

#include "panels.hpp"

namespace gpumlp {

enum { FLOPS = 1 << 18 };  // of a piece for another thread: some times what it costs to share
enum { MANY_FLOPS = 1 << 26 };  // of a piece of a long product
enum { FEW_ROWS = 2 };     // do not repay a copy of b

// the size of the blocks in which k inner entries are added up: nearly the same for all of them
inline int64 inner_block(int64 k, int64 most) {
    const int64 count = (k + most - 1) / most, each = count > 1 ? (k + count - 1) / count : most;
    return (each + LANES - 1) / LANES * LANES;
}

// `count`, or as many as fit the memory if these are fewer: a multiple of `unit`
template <int unit> inline int64 that_fit(int64 count, int64 bytes_of_each, int64 memory) {
    if ((count + unit) * bytes_of_each <= memory) return count;  // a division takes longer
    return memory / bytes_of_each / unit * unit;
}

// out (m, n) ← α a b + β out, for a (m, k).  An `out` in 16 bits is not read, and k ≤ INNER.
template <class T, class Out>
void multiply(int64 m, int64 n, int64 k, View<T> a, View<T> b, Arithmetic<T> alpha,
              Arithmetic<T> beta, Out* out, int64 out_row) {
    using E = Item<T>;
    enum { ENTRIES = Operand<T>::ENTRIES };
    E *const panels = static_cast<E*>(blocks()), *const tiles = panels + BYTES_OF_B / sizeof(E);
    // the first tile copies the rows of b, or it is the only one that reads them
    const bool plain = ENTRIES == 1 && b.column == 1, once = m <= TILE_ROWS;
    const int64 block = inner_block(k, Operand<T>::INNER);
    for (int64 l = 0; l == 0 || l < k; l += block) {
        const int64 inner = least(block, k - l), items = items_of<T>(inner);
        const int64 bytes = (items + (k == 0)) * sizeof(E);
        const int64 most_columns = that_fit<PANEL<E>>(n, bytes, BYTES_OF_B);
        const int64 most_rows = that_fit<TILE_ROWS>(m, bytes, BYTES_OF_A);
        const Arithmetic<T> keep = l == 0 ? beta : Arithmetic<T>(1);
        for (int64 j = 0; j < n; j += most_columns) {
            const int64 width = least(most_columns, n - j), whole = width / PANEL<E> * PANEL<E>;
            const int64 direct = plain ? whole : 0;  // so many columns are not copied here
            copy_panels(b.from(l, j + direct), inner, width - direct, panels + direct * items);
            for (int64 i = 0; i < m; i += most_rows) {
                const int64 height = least(most_rows, m - i);
                // a copy of a is worth its time if some panels read it, and the first cache does not
                // keep what a tile reads: rows of a transpose that are many, or rows that are whole
                // pages apart
                const bool transposed = a.column != 1, many = inner > 128;
                const bool pages = (transposed ? a.column : a.row) * sizeof(T) % 4096 == 0;
                const bool worth = transposed ? many || pages : many && pages && TRANSPOSES_TILES<E>;
                const bool copied = (worth && width >= 4 * PANEL<E>) ||
                                    (ENTRIES > 1 && (transposed || inner % ENTRIES != 0));
                if (copied) copy_tiles(a.from(i, l), height, inner, tiles);
                for (int64 c = 0; c < width; c += PANEL<E>)
                    for (int64 r = 0; r < height; r += TILE_ROWS) {
                        const T* const copy = reinterpret_cast<const T*>(tiles + r * items);
                        const View<T> left = copied
                            ? View<T>{copy, ENTRIES, ENTRIES * TILE_ROWS}
                            : View<T>{a.from(i + r, l).data, a.row, ENTRIES * a.column};
                        E *const panel = panels + c * items, *to = nullptr;
                        const E* right = panel;
                        int64 right_row = PANEL<E>;
                        if constexpr (ENTRIES == 1)
                            if (c < direct && (once || i + r == 0)) {
                                right = b.from(l, j + c).data, right_row = b.row;
                                if (!once) to = panel;
                            }
                        tile_of<T>(height - r, items, left, right, right_row, alpha, keep,
                                   out + (i + r) * out_row + j + c, out_row,
                                   least<int64>(PANEL<E>, width - c), to);
                    }
            }
        }
    }
}

// out (m, n) ← α a b + β out with (α, β) = factors, or (1, 0).  a is (m, k) and b (k, n).
// sums: memory for an `out` in 16 bits, which is not read, as float; null if k ≤ INNER.
// next: what is done with `out` then.
template <class T, class Out> struct Product {
    int64 m, n, k; View<T> a, b; Out* out; const Arithmetic<T>* factors; Arithmetic<T>* sums; Next next;
};

// out (m, n) ← α a b + β out for few rows of a and a transpose b: sums along both of their rows
template <class T, class Out>
void multiply_few(int64 m, int64 n, int64 k, View<T> a, View<T> b, Arithmetic<T> alpha,
                  Arithmetic<T> beta, Out* out, int64 out_row) {
    using real = Arithmetic<T>;
    for (int64 j = 0; j < n; ++j)
        for (int64 i = 0; i < m; ++i) {
            const T *const x = a.from(i, 0).data, *const w = b.from(0, j).data;
            const real sum = sum_of<real>(k, [&](int64 l) { return x[l] * w[l]; });
            Out& there = out[i * out_row + j];
            there = beta != 0 ? alpha * sum + beta * there : alpha * sum;
        }
}

// dots: by sums along the rows of a and of bᵀ
template <class T, class Out>
void product_part(const Product<T, Out>& p, const Part& part, bool dots) {
    using real = Arithmetic<T>;
    const real alpha = p.factors ? p.factors[0] : real(1);
    const real beta = p.factors ? p.factors[1] : real(0);
    const int64 m = part.m, n = part.n, at = part.i * p.n + part.j;
    const View<T> a = p.a.from(part.i, 0), b = p.b.from(0, part.j);
    Out* const out = p.out + at;
    if (dots) return multiply_few(m, n, p.k, a, b, alpha, beta, out, p.n);
    if constexpr (IS_16_BIT<Out>)
        if (p.sums != nullptr) {
            multiply(m, n, p.k, a, b, alpha, beta, p.sums + at, p.n);
            for (int64 r = 0; r < m; ++r) convert(p.sums + at + r * p.n, out + r * p.n, n);
            return;
        }
    multiply(m, n, p.k, a, b, alpha, beta, out, p.n);
}

template <class T, class Out> void product(const void* arguments, const Threads& threads) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const Product<T, Out>*>(arguments);
    const bool dots = p.m <= FEW_ROWS && p.a.column == 1 && p.b.row == 1;
    const int64 flops = 2 * p.m * p.n * p.k;
    if (flops < 2 * FLOPS) {
        product_part(p, Part{0, 0, p.m, p.n}, dots);
        if (p.next.work != nullptr) p.next.work(p.next.arguments, threads);
        return;
    }
    // by columns, which copies no part of b twice, if they suffice for pieces of equal size
    const bool by_columns = dots || p.n >= WIDTH<real> * 4 * threads.count || p.n >= p.m;
    const int64 size = by_columns ? p.n : p.m, unit = by_columns ? WIDTH<real> : TILE_ROWS;
    const int64 units = (size + unit - 1) / unit;
    // as many as there are threads; of a long product more, so that none waits long for another
    const int64 many = least(flops / MANY_FLOPS / threads.count, units / (16 * threads.count));
    const int64 wanted = threads.count * (many > 1 ? many : 1);
    const int64 pieces = least(least(wanted, flops / FLOPS), units);
    const int64 share = pieces > 1 ? (units + pieces - 1) / pieces : units;
    const bool apart = p.next.work != nullptr && !(by_columns && pieces > 1);
    const int64 each = (share > 8 && by_columns ? share + share % 2 : share) * unit;  // whole panels
    over(threads, size, each, [&](int64 begin, int64 end, int64) {
        const Part part = by_columns ? Part{0, begin, p.m, end - begin}
                                     : Part{begin, 0, end - begin, p.n};
        product_part(p, part, dots);
        if (!apart && p.next.part != nullptr) p.next.part(p.next.arguments, part);
    }, 1);
    if (apart) p.next.work(p.next.arguments, threads);
}

// The same by a BLAS, cut into pieces of `each` rows or columns of out, each by one thread.  The
// flags are CBLAS's: 111, or 112 of a transpose.
template <class real, class size> struct BlasProduct {
    void (*gemm)(int, int, int, size, size, size, real, const real*, size, const real*, size, real,
                 real*, size);
    int64 m, n, k;
    const real* a; int64 a_flag, a_stride;
    const real* b; int64 b_flag, b_stride;
    real* out;
    const real* factors;
    int64 each, by_columns;
};

template <class real, class size> void blas_product(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const BlasProduct<real, size>*>(arguments);
    const real alpha = p.factors ? p.factors[0] : real(1);
    const real beta = p.factors ? p.factors[1] : real(0);
    const auto piece = [&](int64 begin, int64 end, int64) {
        const int64 count = end - begin;
        const real *a = p.a, *b = p.b;
        real* out = p.out;
        if (p.by_columns) {
            b += begin * (p.b_flag == 111 ? 1 : p.b_stride);
            out += begin;
        } else {
            a += begin * (p.a_flag == 111 ? p.a_stride : 1);
            out += begin * p.n;
        }
        p.gemm(101, int(p.a_flag), int(p.b_flag), size(p.by_columns ? p.m : count),
               size(p.by_columns ? count : p.n), size(p.k), alpha, a, size(p.a_stride), b,
               size(p.b_stride), beta, out, size(p.n));
    };
    over(threads, p.by_columns ? p.n : p.m, p.each, piece, 1);
}

}  // namespace gpumlp
