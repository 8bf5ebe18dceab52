// Runs CUDA C++ kernels on the CPU, for tests only (g++ on Linux).
//
// host_module.py writes a file that includes this header, then many sources of the library, each in
// its own namespace, then one CUDA_ON_CPU_EXPORT for each kernel.  cuda_on_cpu.cpp holds the
// scheduler and explains how it works.  Kernels that use what is missing here (cooperative groups,
// textures, mma, other warp operations and atomics, PTX outside of GPUMLP_PTX) do not compile.
#pragma once
#include <math.h>  // besides <cmath>: ::tanh(float) and similar functions return float, as in CUDA
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <utility>

namespace cuda_on_cpu {

enum Kind { BLOCK, SYNCWARP, SHUFFLE };
struct Site { const char* file; int line; };
struct Index { unsigned x, y, z; };

// the parameters of a launch
struct Launch {
    unsigned grid[3], block[3];
    uint64_t first_block, blocks;  // the blocks of the grid that run; 0 blocks: all
    uint64_t dynamic_bytes;
    int order;                     // 0 forward, 1 backward, other numbers seed a shuffle
};

// defined in cuda_on_cpu.cpp
const Index& thread_index();
const Index& block_index();
const Index& block_size();
const Index& grid_size();
int lane();
void* dynamic_shared();
uint64_t wait(Kind, Site, unsigned mask = 0, uint64_t value = 0, int source = 0);
const char* run(const Launch&, unsigned most_threads, char* shared_begin, char* shared_end,
                void (*body)(void*), void* argument);

template <class T>
T shuffle(unsigned mask, T v, int source, const char* file, int line) {
    static_assert(sizeof(T) <= 8, "a warp operation takes at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = wait(SHUFFLE, {file, line}, mask, bits, source);
    memcpy(&v, &bits, sizeof v);
    return v;
}

// ---- calling a kernel through void**, as cuLaunchKernel does ---------------------------------

template <class... P> struct Call {
    void (*kernel)(P...);
    void** arguments;
    template <size_t... I> void go(std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_const_t<P>*>(arguments[I])...);
    }
    static void body(void* c) { static_cast<Call*>(c)->go(std::index_sequence_for<P...>()); }
};

// The types of the parameters, so that those of the caller can be checked.  The CUDA driver does not
// check them.  They are constants: text that each kernel made took most of the compiler's time.
struct Type { char kind; unsigned bytes; bool pointer, constant; };
template <class P> constexpr Type type_of() {
    using V = std::remove_pointer_t<std::remove_cv_t<P>>;
    using U = std::remove_cv_t<V>;
    constexpr bool pointer = std::is_pointer_v<P>;
    constexpr bool constant = pointer && std::is_const_v<V>;
    if constexpr (std::is_arithmetic_v<U>)
        return {std::is_floating_point_v<U> ? 'f' : std::is_unsigned_v<U> ? 'u' : 'i', sizeof(U),
                pointer, constant};
#ifdef __CUDA_FP16_H__
    else if constexpr (std::is_same_v<U, __half>) return {'f', 2, pointer, constant};
#endif
#ifdef __CUDA_BF16_H__
    else if constexpr (std::is_same_v<U, __nv_bfloat16>) return {'b', 2, pointer, constant};
#endif
    else static_assert(!sizeof(U), "a type that no test can pass");
}
const char* text_of(const Type* types, size_t count);  // "f4*const i8 "; valid until the next call
template <class... P> const char* signature(void (*)(P...)) {
    static constexpr Type types[sizeof...(P) + 1] = {type_of<P>()...};
    return text_of(types, sizeof...(P));
}
template <class... P>
const char* launch(void (*kernel)(P...), const Launch& request, unsigned most_threads,
                   char* shared_begin, char* shared_end, void** arguments) {
    Call<P...> call{kernel, arguments};
    return run(request, most_threads, shared_begin, shared_end, Call<P...>::body, &call);
}

}  // namespace cuda_on_cpu

// ---- the language ----------------------------------------------------------------------------

#undef __global__
#undef __device__
#undef __shared__
#define __global__ static
#define __device__
#define GPUMLP_KERNEL(name, threads)                \
    enum : unsigned { name##_threads = (threads) }; \
    static void name
#define GPUMLP_PTX(statement, assembly) statement
// One block runs at a time, so a static variable serves as a shared variable of the block.  A
// linker script puts those of one source together, to fill them with NaN before each block.
#define __shared__ static
#define GPUMLP_DYNAMIC_SHARED(T, name) \
    T* const name = static_cast<T*>(cuda_on_cpu::dynamic_shared())

#define threadIdx (cuda_on_cpu::thread_index())
#define blockIdx (cuda_on_cpu::block_index())
#define blockDim (cuda_on_cpu::block_size())
#define gridDim (cuda_on_cpu::grid_size())

// the caller's file and line, for messages
#define CUDA_ON_CPU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_ON_CPU_SITE) {
    cuda_on_cpu::wait(cuda_on_cpu::BLOCK, {file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_ON_CPU_SITE) {
    cuda_on_cpu::wait(cuda_on_cpu::SYNCWARP, {file, line}, mask);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned lanes, CUDA_ON_CPU_SITE) {
    const int l = cuda_on_cpu::lane(), source = l + int(lanes);
    return cuda_on_cpu::shuffle(mask, v, source < 32 ? source : l, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, CUDA_ON_CPU_SITE) {
    return cuda_on_cpu::shuffle(mask, v, cuda_on_cpu::lane() ^ lanes, file, line);
}
template <class T> T atomicAdd(T* p, T v) {  // compare-and-swap of the bits, because T may be float
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    static_assert(sizeof(T) == sizeof(Bits));
    Bits* const bits = reinterpret_cast<Bits*>(p);
    Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED), want;
    T sum;
    do {
        memcpy(&sum, &old, sizeof sum);
        sum += v;
        memcpy(&want, &sum, sizeof sum);
    } while (!__atomic_compare_exchange(bits, &old, &want, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
    memcpy(&sum, &old, sizeof sum);
    return sum;
}

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline void __threadfence() {}  // atomicInc orders all that comes before and after it
// *p ← *p + 1, or 0 after `last`; the old value
inline unsigned atomicInc(unsigned* p, unsigned last) {
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, old >= last ? 0 : old + 1, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
    }
    return old;
}

// one line for each kernel of a source in namespace gpumlp::(anonymous)::space
#define CUDA_ON_CPU_EXPORT(space, name)                                                            \
    extern "C" {                                                                                   \
    __attribute__((visibility("default"))) const char* launch_##space##_##name(                    \
        const cuda_on_cpu::Launch* request, void** arguments) {                                    \
        return cuda_on_cpu::launch(&gpumlp::space::name, *request, gpumlp::space::name##_threads,  \
                                   shared_begin_##space, shared_end_##space, arguments);           \
    }                                                                                              \
    __attribute__((visibility("default"))) const char* signature_##space##_##name() {              \
        return cuda_on_cpu::signature(&gpumlp::space::name);                                       \
    }                                                                                              \
    }
