"""sharing.hpp: the steps of a program are done alone where that takes less time than shared."""

from __future__ import annotations

import subprocess

from gpumlp.backends.cpu import source
from gpumlp.backends.cpu.flags import FLAGS
from tests.support.compiled import needs_compiler
from tests.support.harness.host_module import cached, compiled

pytestmark = needs_compiler

PROGRAM = """
#include "sharing.hpp"
#include <cstdio>
using namespace gpumlp;
void wait(int microseconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
    while (std::chrono::steady_clock::now() < end) {}
}
// how many of these steps are alone, which take so long in both ways
int alone(Sharing& sharing, int steps, int shared_time, int alone_time) {
    int count = 0;
    for (int i = 0; i < steps; ++i)
        sharing.run([&] {
            count += sharing.is_alone();
            wait(sharing.is_alone() ? alone_time : shared_time);
        });
    return count;
}
int main() {
    enum { FIRST = Sharing::FIRST, TIMED = Sharing::TIMED, COMPARED = FIRST + 2 * TIMED };
    Sharing a = {}, b = {}, c = {};
    // first, timed shared, timed alone; then what was decided
    std::printf("%d ", alone(a, COMPARED, 200, 50));
    std::printf("%d ", alone(a, FIRST, 200, 50));
    std::printf("%d ", alone(a, 2 * TIMED, 20, 200));  // now sharing pays
    std::printf("%d\\n", alone(a, FIRST, 20, 200));
    std::printf("%d ", alone(b, COMPARED, 50, 200));
    std::printf("%d ", alone(b, Sharing::LATER * FIRST, 50, 200));
    std::printf("%d\\n", alone(b, 2 * TIMED, 50, 200));
    std::printf("%d\\n", alone(c, COMPARED, 5100, 0));  // a long step is not tried alone
}
"""


def test_the_way_that_takes_less_time_is_taken() -> None:
    path = cached(PROGRAM, ".cpp", lambda: PROGRAM)
    headers = [source.headers() / name for name in ("sharing.hpp", "program.hpp")]
    program = compiled([path, *headers], [*FLAGS, "-O1", f"-I{source.headers()}", str(path)], "")
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["4 16 4 0", "4 0 4", "0"]
