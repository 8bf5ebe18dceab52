// Operations row by row: all of them on some rows, before the next rows.  Then threads wait for each
// other only once, and what one operation writes is in the core's cache when the next reads it.
#pragma once

#include "products.hpp"

namespace gpumlp {

// `rows` does the operation on some rows, of n columns, and `end` what is left then; null if nothing.
struct RowWise {
    void (*rows)(const void* arguments, const Part& part);
    void (*end)(const void* arguments, const Threads& threads);
    const void* arguments; int64 n;
};

// operations on m rows, with so many FLOPs
struct ByRows { int64 m, flops, count; RowWise operations[1]; };

inline void by_rows(const void* arguments, const Threads& threads) {
    const auto& p = *static_cast<const ByRows*>(arguments);
    const int64 units = row_sums(p.m), pieces = least(least<int64>(threads.count, p.flops / FLOPS), units);
    const int64 each = pieces > 1 ? (units + pieces - 1) / pieces * summed_rows(p.m) : p.m;
    over(threads, p.m, each, [&](int64 begin, int64 end, int64) {
        for (int64 i = 0; i < p.count; ++i) {
            const RowWise& one = p.operations[i];
            one.rows(one.arguments, {begin, 0, end - begin, one.n});
        }
    }, 1);
    for (int64 i = 0; i < p.count; ++i)
        if (p.operations[i].end != nullptr) p.operations[i].end(p.operations[i].arguments, threads);
}

}  // namespace gpumlp
