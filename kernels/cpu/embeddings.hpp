// Embeddings: rows of tables in the place of category codes, and the gradients of the tables.
#pragma once

#include "blocks.hpp"

namespace gpumlp {

// The table of one column of x, (c, d), from its entry `start` on; `place` is the first of its
// columns in h or g.
struct Embedded { int64 column, c, d, start, place; };

// h ← the columns `plain` of x, and the row of each code in its table
template <class T> struct Embed {
    const Arithmetic<T>* x; const T* E; T* h; int64 m, columns, width;
    const int64* plain; int64 others; const Embedded* tables; int64 count;
};

template <class T> void embed_on_rows(const void* arguments, const Part& part) {
    const auto& p = *static_cast<const Embed<T>*>(arguments);
    for (int64 i = part.i; i < part.i + part.m; ++i) {
        const Arithmetic<T>* const x = p.x + i * p.columns;
        T* const h = p.h + i * p.width;
        for (int64 j = 0; j < p.others; ++j) h[j] = T(x[p.plain[j]]);
        for (const Embedded* t = p.tables; t < p.tables + p.count; ++t)
            std::memcpy(h + t->place, p.E + t->start + int64(x[t->column]) * t->d, t->d * sizeof(T));
    }
}

template <class T> void embed(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const Embed<T>*>(arguments);
    over_rows(threads, p.m, p.width, embed_on_rows<T>, arguments);
}

// An example and its code: as large as an entry of `order`.
struct Coded { std::uint32_t code, row; };

// bits of a digit, and its values; examples of a piece; columns of a sum in registers
enum { DIGIT = 8, VALUES = 1 << DIGIT, SORTED = 256, HELD = 64 };

inline bool again(int64 c, int digit) { return digit == 0 ? c > 1 : (c - 1) >> digit * DIGIT > 0; }

// The examples in the order of their codes, of equal ones in the order of the rows: by each digit
// of the code, from the last to the first (Knuth, vol. 3, 5.2.5).  b: memory for as many.
template <class real> inline const Coded* sorted(const real* x, int64 m, int64 stride, int64 c, Coded* a, Coded* b) {
    for (int64 i = 0; i < m; ++i) a[i] = {std::uint32_t(x[i * stride]), std::uint32_t(i)};
    for (int digit = 0; again(c, digit); ++digit) {
        int64 starts[VALUES + 1] = {};
        const auto value = [&](const Coded& one) { return (one.code >> digit * DIGIT) % VALUES; };
        for (int64 i = 0; i < m; ++i) ++starts[value(a[i]) + 1];
        for (int64 v = 0; v < VALUES; ++v) starts[v + 1] += starts[v];
        for (int64 i = 0; i < m; ++i) b[starts[value(a[i])]++] = a[i];
        std::swap(a, b);
    }
    return a;
}

// Row r of each dE ← Σ of g over the examples with code r, in their order, or 0.  With factors (α, β):
// the rows of codes that occur ← themselves + α Σ.
template <class T> struct EmbedGradient {
    const Arithmetic<T>* x; const T* g; T* dE; int64 entries, m, columns, width;
    const Embedded* tables; int64 count; Coded* order; const Arithmetic<T>* factors;
};

template <class T> void embed_gradient(const void* arguments, const Threads& threads) {
    using real = Arithmetic<T>;
    const auto& p = *static_cast<const EmbedGradient<T>*>(arguments);
    const auto in_order = [&](int64 t) {  // the half of the table's memory with the result
        int digits = 0;
        while (again(p.tables[t].c, digits)) ++digits;
        return p.order + (2 * t + digits % 2) * p.m;
    };
    if (!p.factors) over(threads, p.entries, 16 * PIECE, [&](int64 begin, int64 end, int64) {
        std::memset(static_cast<void*>(p.dE + begin), 0, (end - begin) * sizeof(T));
    }, 1);
    over(threads, p.count, 1, [&](int64 t, int64, int64) {
        Coded* const own = p.order + 2 * t * p.m;
        sorted(p.x + p.tables[t].column, p.m, p.columns, p.tables[t].c, own, own + p.m);
    }, 1);
    const int64 parts = (p.m + SORTED - 1) / SORTED;
    over(threads, p.count * parts, 1, [&](int64 piece, int64, int64) {
        const Embedded& t = p.tables[piece / parts];
        const Coded* const all = in_order(piece / parts);
        int64 i = piece % parts * SORTED;
        const int64 end = least(i + SORTED, p.m);
        while (i > 0 && i < end && all[i].code == all[i - 1].code) ++i;  // the piece before has them
        while (i < end) {
            int64 next = i + 1;
            while (next < p.m && all[next].code == all[i].code) ++next;
            T* const row = p.dE + t.start + all[i].code * t.d;
            for (int64 j = 0; j < t.d; j += HELD) {
                real sum[HELD] = {};
                const int64 n = least(int64(HELD), t.d - j);
                for (int64 k = i; k < next; ++k) {
                    // rows in the order of codes are far apart: each is asked for before its turn
                    const int64 later = least(k + AHEAD, p.m - 1);
                    __builtin_prefetch(p.g + all[later].row * p.width + t.place + j);
                    const T* const g = p.g + all[k].row * p.width + t.place + j;
                    GPUMLP_LOOP
                    for (int64 l = 0; l < n; ++l) sum[l] += real(g[l]);
                }
                for (int64 l = 0; l < n; ++l)
                    row[j + l] = T(p.factors ? real(row[j + l]) + *p.factors * sum[l] : sum[l]);
            }
            i = next;
        }
    });
}

}  // namespace gpumlp
