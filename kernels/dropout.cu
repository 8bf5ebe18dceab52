// Dropout, and the sum of a layer and a skip.
//
// Entry e of a minibatch reads 16 bits of Philox4x64-10 (Salmon et al., 2011), as NumPy's generator
// gives them, with the key (seed, layer) and the counter (1 + e / 16, step, 0, 0).  Each thread
// computes one output, for 16 entries.  The block puts its outputs into shared memory, so that
// neighbouring threads can access neighbouring entries.
#include "common.cuh"

typedef unsigned long long uint64;
enum { EACH = 16, SHARE = THREADS * EACH };  // entries of an output, and of a block at a time

__device__ inline void philox(uint64 counter, uint64 step, uint64 seed, uint64 layer, uint64* out) {
    uint64 a = counter, b = step, c = 0, d = 0;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64 M = 0xD2E7470EE14C6C93ull, N = 0xCA5A826395121157ull;
        const uint64 high = __umul64hi(M, a), low = M * a;
        a = __umul64hi(N, c) ^ b ^ seed;
        b = N * c;
        c = high ^ d ^ layer;
        d = low;
        seed += 0x9E3779B97F4A7C15ull;
        layer += 0xBB67AE8584CAA73Bull;
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

// skip + value · scale, or skip + 0 if the lowest 16 bits are below the threshold
__device__ inline T masked(uint64 bits, T value, T skip, unsigned threshold, real scale) {
    const real scaled = real(value) * scale;
    return T((unsigned(bits & 0xffff) < threshold ? real(0) : scaled) + real(skip));
}

// *p ← v in one access.  Of an assignment, NVRTC makes an access for each entry here.
template <int N> __device__ void put(T* p, const Pack<N>& v) {
    if constexpr (N == 1) {
        pack<N>(p) = v;
    } else {
        unsigned word[4];
        memcpy(word, &v, sizeof word);
        GPUMLP_PTX(pack<N>(p) = v,
                   volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                            :
                            : "l"(__cvta_generic_to_global(p)), "r"(word[0]), "r"(word[1]),
                              "r"(word[2]), "r"(word[3])
                            : "memory"));
    }
}

// entries low … high of SHARE, of which `noise` has the bits
template <int N, bool SKIP>
__device__ void mask(const T* x, const T* skip, T* y, const uint64* noise, int low, int high,
                     unsigned threshold, real scale) {
    // words of 4 entries in a pack, packs in flight, entries from one pack of a thread to the next
    enum { WORDS = (N + 3) / 4, ROWS = N > 4 ? 2 : 4, NEXT = THREADS * N };
    for (int first = thread() * N; first < SHARE; first += ROWS * NEXT) {
        Pack<N> a[ROWS] = {}, s[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int k = first + r * NEXT;
            if (k < low || k + N > high) continue;
            a[r] = pack<N>(x + k);
            if (SKIP) s[r] = pack<N>(skip + k);
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int k = first + r * NEXT;
            if (k < low || k + N > high) continue;
            uint64 bits[WORDS];
#pragma unroll
            for (int j = 0; j < WORDS; ++j) bits[j] = noise[k / 4 + j] >> 16 * (k % 4);
#pragma unroll
            for (int j = 0; j < N; ++j)
                a[r].at[j] = masked(bits[j / 4] >> 16 * (j % 4), a[r].at[j], s[r].at[j],
                                    threshold, scale);
            put<N>(y + k, a[r]);
        }
    }
    const int k = high - high % N + thread();  // what is left of a pack
    if (k < high)
        y[k] = masked(noise[k / 4] >> 16 * (k % 4), x[k], SKIP ? skip[k] : T(0), threshold, scale);
}

// y ← x ⊙ mask · scale, or that + skip if `joined`, for n entries from entry `origin` of the
// minibatch on.  y may be x or skip.  An entry is dropped if its 16 bits are below the threshold.
// control: `numbers` numbers, the last is the step.  packed: origin is a multiple of PACK, too.
// Of several networks: see member().
GPUMLP_KERNEL(dropout, THREADS)
(const T* x, const T* skip, const int64* seed, const double* control, T* y, int64 n, int64 origin,
 int64 layer, int64 numbers, int threshold, real scale, int joined, int packed) {
    __shared__ uint64 noise[4 * THREADS];
    after_previous_launch();
    x += member() * n, skip += member() * n, y += member() * n;
    const uint64 key = seed[member()], step = uint64(control[(member() + 1) * numbers - 1]);
    const int64 begin = origin % EACH, end = begin + n;  // from the first entry of its output on
    for (int64 start = blockIdx.x * (int64)SHARE; start < end; start += gridDim.x * (int64)SHARE) {
        const int64 output = origin / EACH + start / EACH + thread();
        __syncthreads();  // all threads have read the outputs of an earlier round
        if (start + EACH * thread() < end)
            philox(1 + output, step, key, layer, noise + 4 * thread());
        __syncthreads();
        const int low = start < begin ? int(begin - start) : 0;
        const int high = end - start < SHARE ? int(end - start) : int(SHARE);
        const int64 at = start - begin;
        const T *const a = x + at, *const s = skip + at;
        if (packed && joined) mask<PACK, true>(a, s, y + at, noise, low, high, threshold, scale);
        else if (packed) mask<PACK, false>(a, s, y + at, noise, low, high, threshold, scale);
        else if (joined) mask<1, true>(a, s, y + at, noise, low, high, threshold, scale);
        else mask<1, false>(a, s, y + at, noise, low, high, threshold, scale);
    }
}

template <int N> __device__ void add_skip(const T* x, const T* skip, T* y, int64 n) {
    for (int64 i = first() * N; i < n; i += stride() * N) {
        if (i + N > n) {
            for (int64 k = i; k < n; ++k) y[k] = T(real(x[k]) + real(skip[k]));
            return;
        }
        const Pack<N> a = pack<N>(x + i), b = pack<N>(skip + i);
        Pack<N> sum;
#pragma unroll
        for (int j = 0; j < N; ++j) sum.at[j] = T(real(a.at[j]) + real(b.at[j]));
        pack<N>(y + i) = sum;
    }
}

// y ← x + skip.  y may be one of them.
GPUMLP_KERNEL(join, THREADS)(const T* x, const T* skip, T* y, int64 n, int packed) {
    after_previous_launch();
    if (packed) add_skip<PACK>(x, skip, y, n);
    else add_skip<1>(x, skip, y, n);
}
