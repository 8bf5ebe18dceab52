// Runs programs: see program.hpp.  With the operations that depend on no entry.
#include "operations.hpp"
#include "sharing.hpp"
#include "threads.hpp"

#ifndef _WIN32
#include <unistd.h>
#endif

namespace {

// While programs run, BLAS computes each piece of a product on one thread.  The number of threads
// that it had, by its own setting or threadpoolctl's, is that of the programs.
class OneBlasThread {
public:
    int threads;  // at most this many

    OneBlasThread(int (*get)(), void (*set)(int), int threads) : threads(threads), set(set) {
        if (set == nullptr) return;
        std::lock_guard<std::mutex> guard(lock);
        if (programs++ == 0) {
            before = get();
            set(1);
        }
        if (before < threads) this->threads = before;
    }
    ~OneBlasThread() {
        if (set == nullptr) return;
        std::lock_guard<std::mutex> guard(lock);
        if (--programs == 0) set(before);
    }

private:
    void (*set)(int);
    static std::mutex lock;
    static int programs, before;
};

std::mutex OneBlasThread::lock;
int OneBlasThread::programs = 0, OneBlasThread::before = 1;

}  // namespace

// Run the calls in order, `repeats` times, on at most so many threads.
// get, set: read and change the number of BLAS's threads; null if there is no way.
// sharing: what is known of the program's time on several threads.
GPUMLP_EXPORT void gpumlp_run(const gpumlp::Call* calls, int64_t count, int64_t repeats,
                              int (*get)(), void (*set)(int), int64_t threads,
                              gpumlp::Sharing* sharing) {
    const OneBlasThread one(get, set, int(threads));
    const gpumlp::SubnormalsAreZero fast;
    gpumlp::Threads all = {
        one.threads, [](gpumlp::Piece piece, const void* operation, int64_t pieces, int most) {
            gpumlp::pool().run(piece, operation, pieces, most);
        }};
    const auto step = [&] {
        all.count = sharing->is_alone() ? 1 : one.threads;
        for (int64_t i = 0; i < count; ++i) calls[i].work(calls[i].arguments, all);
    };
    for (int64_t r = 0; r < repeats; ++r) {
        if (one.threads > 1) sharing->run(step);
        else step();
    }
}

// out <- `count` rows of `size` bytes of an open file, of which row 0 begins at byte `start`.
// Returns how many were read; the next one cannot be read, or is beyond the end.
GPUMLP_EXPORT int64_t gpumlp_read_rows(int file, int64_t start, int64_t size, const int64_t* index,
                                       int64_t count, char* out) {
#ifndef _WIN32
    for (int64_t i = 0; i < count; ++i, out += size)
        if (pread(file, out, size_t(size), off_t(start + index[i] * size)) != size) return i;
    return count;
#else
    return 0;
#endif
}

#define GPUMLP_OPERATION(name, ...)                                                               \
    GPUMLP_EXPORT void name(const void* p, const gpumlp::Threads& t) { gpumlp::__VA_ARGS__(p, t); }
using gpumlp::bfloat16;
#define GPUMLP_ROWS(name, ...)                                                                    \
    GPUMLP_EXPORT void name##_on_rows(const void* p, const gpumlp::Part& t) { gpumlp::__VA_ARGS__(p, t); }
#define GPUMLP_FOR_THETA(real)                                                                    \
    GPUMLP_OPERATION(real##_blas_product32, blas_product<real, int32_t>)                          \
    GPUMLP_OPERATION(real##_blas_product64, blas_product<real, int64_t>)                          \
    GPUMLP_OPERATION(real##_average, average<real>)                                               \
    GPUMLP_OPERATION(real##_normalize, normalize<real>)                                           \
    GPUMLP_OPERATION(real##_quintic, quintic<real>)                                               \
    GPUMLP_OPERATION(real##_mean_weights, mean_weights<real>)                                     \
    GPUMLP_OPERATION(real##_begin, begin<real>)
#define GPUMLP_FOR_STORED(T, real)                                                                \
    GPUMLP_OPERATION(T##_product, product<T, T>)                                                  \
    GPUMLP_OPERATION(T##_products, products<T, T>)                                                \
    GPUMLP_ROWS(T##_product, product_on_rows<T, T>)                                                  \
    GPUMLP_ROWS(T##_bias_softmax, bias_softmax_on_rows<T>)                                           \
    GPUMLP_ROWS(T##_softmax_gradient, softmax_gradient_on_rows<T>)                                   \
    GPUMLP_ROWS(T##_cross_entropy, cross_entropy_on_rows<T, real>)                                   \
    GPUMLP_ROWS(T##_cross_entropy_of_labels, cross_entropy_on_rows<T, int32_t>)                      \
    GPUMLP_ROWS(T##_softmax, softmax_on_rows<T>)                                                     \
    GPUMLP_ROWS(T##_dropout, dropout_on_rows<T>)                                                     \
    GPUMLP_ROWS(T##_join, join_on_rows<T>)                                                           \
    GPUMLP_ROWS(T##_embed, embed_on_rows<T>)                                                         \
    GPUMLP_OPERATION(T##_activation_gradient_end, activation_gradient_end<T>)                     \
    GPUMLP_OPERATION(T##_rows_gradient_end, rows_gradient_end<T>)                                 \
    GPUMLP_OPERATION(T##_gate_gradient_end, gate_gradient_end<T>)                                 \
    GPUMLP_OPERATION(T##_loss_end, loss_end<T>)                                                   \
    GPUMLP_OPERATION(T##_add, add<T>)                                                             \
    GPUMLP_OPERATION(T##_bias_softmax, bias_softmax<T>)                                           \
    GPUMLP_OPERATION(T##_softmax, softmax<T>)                                                     \
    GPUMLP_OPERATION(T##_softmax_gradient, softmax_gradient<T>)                                   \
    GPUMLP_OPERATION(T##_dropout, dropout<T>)                                                     \
    GPUMLP_OPERATION(T##_join, join<T>)                                                           \
    GPUMLP_OPERATION(T##_embed, embed<T>)                                                         \
    GPUMLP_OPERATION(T##_embed_gradient, embed_gradient<T>)                                       \
    GPUMLP_OPERATION(T##_cross_entropy, cross_entropy<T, real>)                                   \
    GPUMLP_OPERATION(T##_cross_entropy_of_labels, cross_entropy<T, int32_t>)
GPUMLP_FOR_THETA(float)
GPUMLP_FOR_THETA(double)
GPUMLP_FOR_STORED(float, float)
GPUMLP_FOR_STORED(double, double)
GPUMLP_FOR_STORED(bfloat16, float)
GPUMLP_OPERATION(bfloat16_product_to_float, product<bfloat16, float>)
GPUMLP_OPERATION(bfloat16_products_to_float, products<bfloat16, float>)
GPUMLP_OPERATION(bfloat16_round, round)
GPUMLP_OPERATION(gpumlp_gather, gather)
GPUMLP_ROWS(gpumlp_gather, gather_on_rows)
GPUMLP_OPERATION(gpumlp_by_rows, by_rows)
GPUMLP_OPERATION(gpumlp_end, end)
