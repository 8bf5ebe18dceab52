// Whether the steps of a program take less time on several threads than on one.
#pragma once

#include <chrono>

#include "program.hpp"

namespace gpumlp {

// Two cores of a virtual machine may be one core that runs two threads, and a container may have a
// share of a core.  There, threads that share small pieces of work are in each other's way.  Results
// have the same bits on any number of threads, so a few steps are timed now and then, shared and
// alone, and the steps after them are done in the way that took less time.
//
// All members are 0 at first.
struct Sharing {
    enum { FIRST = 16, LATER = 4, MOST = 4096 };  // steps until a comparison: LATER times as many each
    enum { TIMED = 4 };                           // steps of a comparison, of each way
    enum { LONG = 5000000 };  // nanoseconds of a step that is shared in any case
    int64 phase, left, pause, alone;  // phase 0: as decided; 1: that way is timed; 2: the other way
    double least[2];                  // nanoseconds of a step, of both ways

    bool is_alone() const { return (phase == 2) != (alone != 0); }

    template <class Step> void run(const Step& step) {
        if (pause == 0) pause = left = FIRST;
        if (phase == 0) {
            step();
        } else {
            const auto start = std::chrono::steady_clock::now();
            step();
            const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
            double& best = least[phase - 1];
            if (time.count() < best) best = time.count();
        }
        if (--left > 0) return;
        if (phase == 0) {
            least[0] = least[1] = 1e300;
        } else if (phase == 1 && least[0] > LONG) {
            phase = 2;  // the other way is not tried
        } else if (phase == 2) {
            const bool other = least[1] < 0.97 * least[0];
            alone = alone != 0 ? !other : other;
            pause = other ? FIRST : pause < MOST ? LATER * pause : MOST;
        }
        phase = (phase + 1) % 3;
        left = phase == 0 ? pause : TIMED;
    }
};

}  // namespace gpumlp
