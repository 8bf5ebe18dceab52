// Embeddings: rows of tables in the place of category codes, and the gradients of the tables.
//
// The entry gives the numbers of the network: TABLES, COLUMNS and PLAIN of x, WIDTH of h, ADDED of
// them from the tables; of each table its column of x, c, d, its start in E and its first column in h.
//
// Each sum has a fixed order: the examples are sorted by code and row, in tiles and then by merging,
// and cut into parts.  A part adds the rows of each code that it has; what goes on in the next part
// is added last.
#include "common.cuh"

enum { COLUMN, CATEGORIES, DIM, START, PLACE, TILE = 1024, AT_A_TIME = 4 };

// an example and its code; greater than all is NONE
__device__ inline int64 key(int64 code, int64 row) { return code << 32 | row; }
__device__ inline int64 code_of(int64 key) { return key >> 32; }
__device__ inline int64 row_of(int64 key) { return key & 0xffffffffll; }
#define NONE 0x7fffffffffffffffll

// h ← the plain columns of x, and the row of each code.  x (m, COLUMNS), h (m, WIDTH).
GPUMLP_KERNEL(embed, THREADS)(const real* x, const T* E, T* h, int64 rows, int64 apart) {
    after_previous_launch();
    x += member() * rows * COLUMNS, E += member() * apart, h += member() * rows * WIDTH;
    for (int64 column = first(); column < WIDTH; column += stride()) {
        int t = TABLES;  // the table of this column
        for (int i = TABLES - 1; i >= 0 && column >= PLAIN; --i)
            if (column < TABLE[i][PLACE] + TABLE[i][DIM]) t = i;
        const int64 from = t < TABLES ? TABLE[t][COLUMN] : PLAIN_COLUMN[column];
        const int64 dim = t < TABLES ? TABLE[t][DIM] : 0;
        const T* const own = E + (t < TABLES ? TABLE[t][START] + column - TABLE[t][PLACE] : 0);
        for (int64 row = first_row(); row < rows; row += AT_A_TIME * row_stride()) {
            real value[AT_A_TIME] = {};
            T entry[AT_A_TIME] = {};
#pragma unroll
            for (int r = 0; r < AT_A_TIME; ++r)
                if (row + r * row_stride() < rows)
                    value[r] = x[(row + r * row_stride()) * COLUMNS + from];
#pragma unroll
            for (int r = 0; r < AT_A_TIME; ++r)
                if (row + r * row_stride() < rows)
                    entry[r] = t < TABLES ? own[int64(value[r]) * dim] : T(value[r]);
#pragma unroll
            for (int r = 0; r < AT_A_TIME; ++r)
                if (row + r * row_stride() < rows)
                    h[(row + r * row_stride()) * WIDTH + column] = entry[r];
        }
    }
}

// dE ← 0, n entries, and each tile of `size` examples, a power of two up to TILE, in the order of
// its keys.  order (TABLES, rows).
GPUMLP_KERNEL(embed_sort, THREADS)
(const real* x, int64* order, T* dE, int64 rows, int64 n, int64 apart, int64 behind, int size,
 int packed) {
    __shared__ int64 keys[TILE];
    after_previous_launch();
    x += member() * rows * COLUMNS, order += member() * behind, dE += member() * apart;
    const int64 whole = packed ? n / PACK : 0;
    const Pack<PACK> zeros = {};
    for (int64 i = first(); i < whole; i += stride()) pack<PACK>(dE + i * PACK) = zeros;
    for (int64 i = whole * PACK + first(); i < n; i += stride()) dE[i] = T(real(0));
    const int64 tiles = (rows + size - 1) / size;
    for (int64 tile = blockIdx.x; tile < TABLES * tiles; tile += gridDim.x) {
        const int64 t = tile / tiles, begin = tile % tiles * size;
        for (int i = thread(); i < size; i += THREADS) {
            const int64 row = begin + i;
            keys[i] = row < rows ? key(int64(x[row * COLUMNS + TABLE[t][COLUMN]]), row) : NONE;
        }
        // Batcher's bitonic sort (Knuth, vol. 3, 5.2.2)
        for (int part = 2; part <= size; part *= 2)
            for (int apart = part / 2; apart > 0; apart /= 2) {
                __syncthreads();
                for (int i = thread(); i < size / 2; i += THREADS) {
                    const int low = 2 * i - (i & (apart - 1));
                    const int64 a = keys[low], b = keys[low + apart];
                    if ((a > b) == ((low & part) == 0)) keys[low] = b, keys[low + apart] = a;
                }
            }
        __syncthreads();
        for (int i = thread(); i < size && begin + i < rows; i += THREADS)
            order[t * rows + begin + i] = keys[i];
        __syncthreads();  // all threads have read the keys
    }
}

// to ← each two neighbouring runs of `run` keys, in order.  from, to (TABLES, rows).
GPUMLP_KERNEL(embed_merge, THREADS)
(const int64* from, int64* to, int64 rows, int64 behind, int64 run) {
    after_previous_launch();
    from += member() * behind, to += member() * behind;
    for (int64 i = first(); i < TABLES * rows; i += stride()) {
        const int64 t = i / rows, at = i % rows, begin = at / (2 * run) * (2 * run);
        const int64* const keys = from + t * rows;
        const int64 own = keys[at], middle = begin + run < rows ? begin + run : rows;
        const int64 end = middle + run < rows ? middle + run : rows;
        // the number of keys of the other run that are before it
        const int64 start = at < middle ? middle : begin, stop = at < middle ? end : middle;
        int64 low = start, high = stop;
        while (low < high) {
            const int64 half = (low + high) / 2;
            if (keys[half] < own) low = half + 1;
            else high = half;
        }
        to[t * rows + (at < middle ? at : at - run) + low - start] = own;
    }
}

// the threads that share the columns of a table
__device__ inline int lanes_of(int64 dim) {
    int lanes = 1;
    while (lanes < dim && lanes < 32) lanes *= 2;
    return lanes;
}

// row of dE ← the sum, or itself + factors[0] · the sum
__device__ inline void give(T* entry, real sum, const real* factors, int adds) {
    *entry = T(adds ? real(*entry) + factors[0] * sum : sum);
}

// The sum of g over the examples of one code, in each part of `each` keys.  A code whose examples are
// all in one part: see `give`.  Otherwise sums[part][0] ← the sum if the code began in an
// earlier part, sums[part][1] ← if it begins here.  order (TABLES, rows), sums (parts, 2, ADDED).
GPUMLP_KERNEL(embed_sum, THREADS)
(const int64* order, const T* g, T* dE, real* sums, const real* factors, int64 rows, int64 width, int64 apart, int64 behind,
 int64 each, int adds) {
    after_previous_launch();
    const int64 parts = (rows + each - 1) / each, t = blockIdx.y, dim = TABLE[t][DIM];
    const int64 place = TABLE[t][PLACE] - WIDTH + width;
    const int64* const keys = order + member() * behind + t * rows;
    g += member() * rows * width + place, dE += member() * apart + TABLE[t][START];
    sums += member() * parts * 2 * ADDED + TABLE[t][PLACE] - PLAIN;
    const int lanes = lanes_of(dim), groups = THREADS / lanes;
    for (int64 at = blockIdx.x * (int64)groups + thread() / lanes; at < rows;
         at += gridDim.x * (int64)groups) {
        const int64 code = code_of(keys[at]), part = at / each;
        const int64 end = (part + 1) * each < rows ? (part + 1) * each : rows;
        const bool begins = at == 0 || code_of(keys[at - 1]) != code;
        if (!begins && at % each != 0) continue;
        int64 next = at;  // the first key of another code, or the end of the part
        for (int64 column = thread() % lanes; column < dim; column += lanes) {
            real sum = 0;
            bool same = true;
            for (next = at; same && next < end;) {
                T entry[AT_A_TIME] = {};
                int found = 0;
#pragma unroll
                for (int r = 0; r < AT_A_TIME; ++r) {
                    const int64 k = next + r < end ? keys[next + r] : NONE;
                    if (code_of(k) == code) entry[r] = g[row_of(k) * width + column], ++found;
                }
#pragma unroll
                for (int r = 0; r < AT_A_TIME; ++r)
                    if (r < found) sum += real(entry[r]);
                next += found, same = found == AT_A_TIME;
            }
            const bool goes_on = next == end && end < rows && code_of(keys[end]) == code;
            if (begins && !goes_on) give(dE + code * dim + column, sum, factors, adds);
            else sums[(2 * part + begins) * ADDED + column] = sum;
        }
    }
}

// The sums of the parts of each code with examples in more than one part: see `give`.
GPUMLP_KERNEL(embed_join, THREADS)
(const int64* order, T* dE, const real* sums, const real* factors, int64 rows, int64 apart, int64 behind,
 int64 each, int adds) {
    after_previous_launch();
    const int64 parts = (rows + each - 1) / each, t = blockIdx.y, dim = TABLE[t][DIM];
    const int64* const keys = order + member() * behind + t * rows;
    dE += member() * apart + TABLE[t][START];
    sums += member() * parts * 2 * ADDED + TABLE[t][PLACE] - PLAIN;
    const int lanes = lanes_of(dim), groups = THREADS / lanes;
    for (int64 part = blockIdx.x * (int64)groups + thread() / lanes; part < parts - 1;
         part += gridDim.x * (int64)groups) {
        const int64 end = (part + 1) * each, code = code_of(keys[end - 1]);
        const bool began = part > 0 && code_of(keys[part * each - 1]) == code;
        if (began || code_of(keys[end]) != code) continue;
        for (int64 column = thread() % lanes; column < dim; column += lanes) {
            real sum = sums[(2 * part + 1) * ADDED + column];
            bool same = true;
            for (int64 next = part + 1; same && next < parts;) {
                real more[AT_A_TIME] = {};
                int found = 0;
#pragma unroll
                for (int r = 0; r < AT_A_TIME; ++r)
                    if (next + r < parts && code_of(keys[(next + r) * each]) == code)
                        more[r] = sums[2 * (next + r) * ADDED + column], ++found;
#pragma unroll
                for (int r = 0; r < AT_A_TIME; ++r)
                    if (r < found) sum += more[r];
                next += found, same = found == AT_A_TIME;
            }
            give(dE + code * dim + column, sum, factors, adds);
        }
    }
}
