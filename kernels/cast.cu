// Cast examples from the type that they have on the host to the storage type.
//
// The loader puts above this:  typedef … Source;  the type that is cast from
//                              typedef … Wide;    a type that holds every Source and that is
//                                                 rounded to T as NumPy rounds: once, and to
//                                                 bfloat16 from float
// CuPy compiles with -ftz=true: a double that is smaller than float's normal numbers becomes 0.
#include "common.cuh"

// the wider of the two types has 16-byte accesses, so that neighbouring threads access neighbouring
// bytes of both arrays
enum { EACH = 16 / (sizeof(T) > sizeof(Source) ? sizeof(T) : sizeof(Source)) };

// out ← source, n entries; packed: both arrays are aligned to 16 bytes
GPUMLP_KERNEL(cast, THREADS)
(const Source* source, T* out, int64 n, int packed) {
    after_previous_launch();
    const int64 whole = packed ? n / EACH * EACH : 0;
    for (int64 i = first() * EACH; i < whole; i += stride() * EACH) {
        const Pack<EACH, Source> a = pack<EACH>(source + i);
        Pack<EACH> b;
        for (int j = 0; j < EACH; ++j) b.at[j] = T(Wide(a.at[j]));
        pack<EACH>(out + i) = b;
    }
    for (int64 i = whole + first(); i < n; i += stride()) out[i] = T(Wide(source[i]));
}
