// Examples as they come from the host, in a type of their own, cast to the storage type.
//
// The loader puts above this:  typedef … Source;  the type that is cast from
//                              typedef … Wide;    which holds every Source, and is rounded to T as
//                                                 NumPy rounds: once, and to bfloat16 from float
// CuPy compiles with -ftz=true: of double only, what lies below float's normal numbers becomes 0.
#include "common.cuh"

// the wider of the two types takes 16-byte accesses: neighbouring threads then touch neighbouring
// bytes on both sides
enum { EACH = 16 / (sizeof(T) > sizeof(Source) ? sizeof(T) : sizeof(Source)) };

// out ← source, n of them; packed: both arrays are aligned to 16 bytes
GPUMLP_KERNEL(cast, THREADS)
(const Source* source, T* out, int64 n, int packed) {
    const int64 whole = packed ? n / EACH * EACH : 0;
    for (int64 i = first() * EACH; i < whole; i += stride() * EACH) {
        const Pack<EACH, Source> a = pack<EACH>(source + i);
        Pack<EACH> b;
        for (int j = 0; j < EACH; ++j) b.at[j] = T(Wide(a.at[j]));
        pack<EACH>(out + i) = b;
    }
    for (int64 i = whole + first(); i < n; i += stride()) out[i] = T(Wide(source[i]));
}
