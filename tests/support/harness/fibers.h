// The stacks of CUDA threads, and the switch between them.  With -DWITH_ASAN and -DWITH_TSAN, each
// switch is announced to the sanitizer.
#pragma once
#include <ucontext.h>

#include <memory>
#include <vector>

#if defined(WITH_ASAN)
#include <sanitizer/common_interface_defs.h>
#elif defined(WITH_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_on_cpu {

constexpr size_t STACK = 256 << 10;  // bytes

struct Fiber {
    ucontext_t context{};
    void* place[5];  // where it stopped last; not used with ThreadSanitizer
    bool started = false;
    std::unique_ptr<char[]> stack;
    void* fake_stack = nullptr;  // AddressSanitizer's
    void* tsan = nullptr;        // ThreadSanitizer's
};

class Fibers {
public:
    // main() runs on each fiber; it calls entered() first and never returns
    explicit Fibers(void (*main)()) : main_(main) { scheduler_.started = true; }

    Fiber* running() const { return running_; }
    size_t count() const { return all_.size(); }

    // the caller of launch() is the scheduler, to which the fibers return
    void launch() {
        running_ = &scheduler_;
#if defined(WITH_TSAN)
        scheduler_.tsan = __tsan_get_current_fiber();
#endif
    }

    void entered() {
#if defined(WITH_ASAN)
        __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_size_);
#endif
    }

    // an unused fiber: a new one, or one that was returned
    Fiber* acquire() {
        if (idle_.empty()) return make();
        Fiber* const fiber = idle_.back();
        idle_.pop_back();
        return fiber;
    }
    void give_back() { idle_.push_back(running_); }

    // forget all fibers, wherever they are
    void drop() {
#if defined(WITH_TSAN)
        for (auto& fiber : all_) __tsan_destroy_fiber(fiber->tsan);
#endif
        idle_.clear();
        all_.clear();
    }

    void to_scheduler() { switch_to(scheduler_); }
    void switch_to(Fiber& to) {
        Fiber& from = *running_;
        running_ = &to;
#if defined(WITH_ASAN)
        const bool back = &to == &scheduler_;
        __sanitizer_start_switch_fiber(&from.fake_stack, back ? scheduler_stack_ : to.stack.get(),
                                       back ? scheduler_stack_size_ : STACK);
        jump(from, to);
        __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#elif defined(WITH_TSAN)
        // a fiber sees the memory that the launch saw; the switch back transfers nothing
        const bool back = &to == &scheduler_;
        __tsan_switch_to_fiber(to.tsan, back ? __tsan_switch_to_fiber_no_sync : 0);
        swapcontext(&from.context, &to.context);
#else
        jump(from, to);
#endif
    }

private:
    // swapcontext without its two system calls, and without AddressSanitizer's longjmp, which
    // treats each jump as the end of the stack's frames and forgets their guards
    [[gnu::noinline]] static void jump(Fiber& from, Fiber& to) {
        if (__builtin_setjmp(from.place)) return;
        go_on(to);
    }
    [[gnu::noinline]] static void go_on(Fiber& to) {  // GCC needs it in another function
        if (to.started) __builtin_longjmp(to.place, 1);
        to.started = true;
        setcontext(&to.context);
    }

    Fiber* make() {
        all_.push_back(std::make_unique<Fiber>());
        Fiber* const fiber = all_.back().get();
        fiber->stack.reset(new char[STACK]);
        getcontext(&fiber->context);
        fiber->context.uc_stack.ss_sp = fiber->stack.get();
        fiber->context.uc_stack.ss_size = STACK;
        makecontext(&fiber->context, main_, 0);
#if defined(WITH_TSAN)
        fiber->tsan = __tsan_create_fiber(0);
#endif
        return fiber;
    }

    void (*main_)();
    Fiber scheduler_;  // uses the caller's stack
    const void* scheduler_stack_ = nullptr;
    size_t scheduler_stack_size_ = 0;
    Fiber* running_ = nullptr;
    std::vector<std::unique_ptr<Fiber>> all_;
    std::vector<Fiber*> idle_;
};

}  // namespace cuda_on_cpu
