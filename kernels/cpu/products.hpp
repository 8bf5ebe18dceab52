// Matrix products: by tiles, or by NumPy's BLAS if they are large.
#pragma once

#include "amx.hpp"
#include "few_rows.hpp"
#include "panels.hpp"

namespace gpumlp {

enum { FLOPS = 1 << 18 };  // of a piece for another thread: some times what it costs to share
enum { MANY_FLOPS = 1 << 26 };  // of a piece of a long product
enum { NEAR_BYTES = 12 << 20 };  // of a matrix that stays in the third cache

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

// The order in which a product goes through matrices that do not stay in the third cache: along their
// rows, which the processor fetches by itself, because parts of rows lie on many pages.
template <class T> struct Order {
    int64 inner = Operand<T>::INNER;  // so many inner entries are added up in registers
    bool along_b = false;             // the rows of b are copied at once, not by the first tiles
    bool along_out = false;           // tiles follow the rows of `out`

    Order() = default;
    Order(int64 m, int64 n, int64 k, View<T> b) {
        const auto far = [](int64 entries) { return entries > int64(NEAR_BYTES / sizeof(T)); };
        const bool few = m <= 2 * TILE_ROWS && b.column == 1 && !IS_16_BIT<T>;
        if (few && far(n * k)) inner = AHEAD;  // so few rows of b that each is followed
        along_b = !few && far(n * k), along_out = far(m * n);
    }
};

// out (m, n) ← α a b + β out, for a (m, k).  An `out` in 16 bits is not read, and k ≤ INNER.
template <class T, class Out>
void multiply(int64 m, int64 n, int64 k, View<T> a, View<T> b, Arithmetic<T> alpha,
              Arithmetic<T> beta, Out* out, int64 out_row, const Order<T>& order = {}) {
    using E = Item<T>;
    enum { ENTRIES = Operand<T>::ENTRIES };
    E *const panels = static_cast<E*>(blocks()), *const tiles = panels + BYTES_OF_B / sizeof(E);
    // the first tile copies the rows of b, or it is the only one that reads them
    const bool plain = ENTRIES == 1 && b.column == 1, once = m <= TILE_ROWS;
    const int64 block = inner_block(k, order.inner);
    for (int64 l = 0; l == 0 || l < k; l += block) {
        const int64 inner = least(block, k - l), items = items_of<T>(inner);
        const int64 bytes = (items + (k == 0)) * sizeof(E);
        const int64 most_columns = that_fit<PANEL<E>>(n, bytes, BYTES_OF_B);
        const int64 most_rows = that_fit<TILE_ROWS>(m, bytes, BYTES_OF_A);
        const Arithmetic<T> keep = l == 0 ? beta : Arithmetic<T>(1);
        for (int64 j = 0; j < n; j += most_columns) {
            const int64 width = least(most_columns, n - j), whole = width / PANEL<E> * PANEL<E>;
            const int64 direct = plain && !order.along_b ? whole : 0;  // these columns are not copied here
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
                for (int64 r = 0, c = 0; r < height && c < width;) {
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
                    if (!order.along_out) {
                        if ((r += TILE_ROWS) >= height) r = 0, c += PANEL<E>;
                    } else if ((c += PANEL<E>) >= width) c = 0, r += TILE_ROWS;
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

// The part of a product, by the processor's matrix tiles if it has them and they take less time.
template <class T, class Out, class To>
void multiply_by_tiles(const Product<T, Out>& p, const Part& part, View<T> a, View<T> b,
                       Arithmetic<T> alpha, Arithmetic<T> beta, To* out) {
#if defined(__AMX_BF16__)
    if constexpr (!std::is_same<T, double>::value)
        if (amx::repays<T>(p.m, p.n, p.k)) {
            if (amx::multiply(part.m, part.n, p.k, a, b, alpha, beta, out, p.n)) return;
            // these sums once more; `out` is not read, for hardly ever is one of them finite
            amx::over_far(a, part.m, p.k, [&](int64 i, int64 rows) {
                multiply(rows, part.n, p.k, a.from(i, 0), b, alpha, 0.0f, out + i * p.n, p.n);
            });
            return amx::over_far(View<T>{b.data, b.column, b.row}, part.n, p.k, [&](int64 j, int64 columns) {
                multiply(part.m, columns, p.k, a, b.from(0, j), alpha, 0.0f, out + j, p.n);
            });
        }
#endif
    multiply(part.m, part.n, p.k, a, b, alpha, beta, out, p.n, Order<T>(p.m, p.n, p.k, b));
}

// dots: by sums along the rows of a and of bᵀ
template <class T, class Out>
void multiply_part(const Product<T, Out>& p, const Part& part, bool dots) {
    using real = Arithmetic<T>;
    const real alpha = p.factors ? p.factors[0] : real(1);
    const real beta = p.factors ? p.factors[1] : real(0);
    const int64 m = part.m, n = part.n, at = part.i * p.n + part.j;
    const View<T> a = p.a.from(part.i, 0), b = p.b.from(0, part.j);
    Out* const out = p.out + at;
    if (dots) return multiply_few(m, n, p.k, a, b, alpha, beta, out, p.n);
    if constexpr (IS_16_BIT<Out>)
        if (p.sums != nullptr) {
            multiply_by_tiles(p, part, a, b, alpha, beta, p.sums + at);
            for (int64 r = 0; r < m; ++r) convert(p.sums + at + r * p.n, out + r * p.n, n);
            return;
        }
    multiply_by_tiles(p, part, a, b, alpha, beta, out);
}

// How a product is cut: into pieces of `each` columns, or rows.
template <class T, class Out> struct Cut {
    bool dots, by_columns; int64 size, each, pieces;

    // in_rows: not into columns
    Cut(const Product<T, Out>& p, int threads, bool in_rows = false) {
        enum { WIDE = WIDTH<Arithmetic<T>> };
        dots = few_rows(p.m, p.k, p.a, p.b);
        const int64 flops = 2 * p.m * p.n * p.k;
        // by columns, which copies no part of b twice, if they suffice for pieces of equal size
        by_columns = !in_rows && (dots || p.n >= WIDE * 4 * threads || p.n >= p.m);
        size = each = by_columns ? p.n : p.m, pieces = 1;
        if (flops < 2 * FLOPS) return;
        const int64 unit = by_columns ? WIDE : TILE_ROWS / (in_rows ? 3 : 1);
        const int64 units = (size + unit - 1) / unit;
        // as many as there are threads; of a long product more, so that none waits long for another
        const int64 many = least(flops / MANY_FLOPS / threads, units / (16 * threads));
        const int64 wanted = least(least(threads * (many > 1 ? many : 1), flops / FLOPS), units);
        const int64 share = wanted > 1 ? (units + wanted - 1) / wanted : units;
        each = (share > 8 && by_columns ? share + share % 2 : share) * unit;  // whole panels
        pieces = (size + each - 1) / each;
    }

    // the part of a piece, when it is done
    Part multiply(const Product<T, Out>& p, int64 piece) const {
        const int64 begin = piece * each, count = least(each, size - begin);
        const Part part = by_columns ? Part{0, begin, p.m, count} : Part{begin, 0, count, p.n};
        multiply_part(p, part, dots);
        return part;
    }
};

template <class T, class Out> void product(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Product<T, Out>*>(arguments);
    const Cut<T, Out> cut(p, threads.count);
    const bool apart = p.next.work != nullptr && !(cut.by_columns && cut.pieces > 1);
    over(threads, cut.pieces, 1, [&](int64 piece, int64, int64) {
        const Part part = cut.multiply(p, piece);
        if (!apart && p.next.part != nullptr) p.next.part(p.next.arguments, part);
    }, 1);
    if (apart) p.next.work(p.next.arguments, threads);
}

// some rows of a product, without what is done next
template <class T, class Out> void product_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const Product<T, Out>*>(arguments);
    multiply_part(p, part, few_rows(p.m, p.k, p.a, p.b));
}

// Products that do not depend on each other: a thread that is done with its part of one goes on with
// the next.  If there is an update of the entries [begin, end) of θ, `out` is the gradient from the
// entry `start` on, and what a thread has computed, it updates at once.
struct Several {
    int64 count; void (*update)(const void* arguments, const Part& entries);
    const void* arguments; int64 begin, end;
    struct { const void* product; int64 start; } each[1];
};
enum { MOST_PRODUCTS = 32 };

template <class T, class Out> void products(const void* arguments, const Threads& threads) {
    typedef Product<T, Out> One;
    const auto& p = *static_cast<const Several*>(arguments);
    const auto one = [&](int64 i) -> const One& { return *static_cast<const One*>(p.each[i].product); };
    const bool updates = p.update != nullptr;
    int64 flops = 0, first[MOST_PRODUCTS + 1] = {};  // the first piece of each product
    for (int64 i = 0; i < p.count; ++i) flops += 2 * one(i).m * one(i).n * one(i).k;
    const Threads some = {flops < 2 * FLOPS ? 1 : threads.count, threads.share};
    for (int64 i = 0; i < p.count; ++i)
        first[i + 1] = first[i] + Cut<T, Out>(one(i), some.count, updates).pieces;
    over(some, first[p.count], 1, [&](int64 piece, int64, int64) {
        int64 i = 0;
        while (piece >= first[i + 1]) ++i;
        const Part part = Cut<T, Out>(one(i), some.count, updates).multiply(one(i), piece - first[i]);
        const int64 n = one(i).n, start = p.each[i].start + part.i * n;
        if (updates) p.update(p.arguments, {start, 0, part.m * n, 0});
    }, 1);
    if (!updates) return;
    int64 at = p.begin;  // the other entries, such as biases
    for (int64 i = p.count - 1; i >= -1; at = i < 0 ? at : p.each[i].start + one(i).m * one(i).n, --i) {
        const int64 next = i < 0 ? p.end : p.each[i].start;
        if (next > at) p.update(p.arguments, {at, 0, next - at, 0});
    }
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
