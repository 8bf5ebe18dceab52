"""The compiled library under sanitizers: its memory, undefined behaviour, and its threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpumlp.backends.cpu import source
from gpumlp.backends.cpu.flags import FLAGS, X86
from gpumlp.backends.numpy.blas import numpy_blas
from tests.support.compiled import EMULATED_TILES, needs_compiler
from tests.support.harness.host_module import cached, compiled, sanitizer_environment

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, needs_compiler]

# A few entries of each table: a sanitizer sees the loops, and not the mathematics.
NETWORKS = """
import itertools, os, sys
from pathlib import Path
import numpy as np
import gpumlp
from gpumlp.backends.cpu import backend, source
from gpumlp.backends.cpu.loading import Library

def few(table, *names):
    return {name: table[name] for name in names}

source.ACTIVATIONS = few(source.ACTIVATIONS, "identity", "relu", "gelu")
source.LOSSES = few(source.LOSSES, "huber")
source.OPTIMIZERS = few(source.OPTIMIZERS, "sgd", "adamw")
source.REGULARIZERS = few(source.REGULARIZERS, "none", "elastic_net")
if sys.argv[1] == "source":
    print(source.built_in(source.headers()))
    sys.exit()
found = Library(Path(sys.argv[1]), "baseline")
backend.installed = lambda: found
backend.CORES = 3
os.environ[backend.EMULATE] = "1"
rng = np.random.default_rng(0)
widths = [(1, 1), (3, 7, 2), (7, 513, 1), (513, 3, 513), (17, 300, 300, 5)]
omega = gpumlp.ElasticNet(0.01, 0.1)
for shape, precision in itertools.product(widths, ("float32", "float64", "bfloat16")):
    m = 300 if max(shape) == 300 else 37
    x = rng.normal(size=(m, shape[0]))
    x[3, 0] = np.nan if shape[0] == 3 else 1e30
    for loss, optimizer in (("huber", "sgd"), ("softmax_cross_entropy", "adamw")):
        if loss == "huber":
            y = rng.normal(size=(m, shape[-1]))
        else:
            y = rng.integers(0, shape[-1], m)
        net = gpumlp.MLP(shape, "gelu", "relu" if loss == "huber" else "softmax"
            if shape[-1] == 2 else "identity", loss=loss, regularizer=omega, precision=precision,
            backend="cpu")
        net.cost_and_gradients(x, y) if np.isfinite(x).all() else None
        if shape[0] == 3:
            x[3, 0] = 0
        trainer = gpumlp.Trainer(net, optimizer, lr=1e-4, batch_size=16 if m < 99 else 250,
            clip_norm=1.0, ema=0.9, accumulate=1 if optimizer == "sgd" else 2,
            groups={"biases": gpumlp.Group(2.0)} if optimizer == "adamw" else None)
        trainer.fit(x / np.abs(x).max(), y, epochs=2, progress=False, sample_weight=rng.random(m))
        plain = gpumlp.Trainer(net, optimizer, lr=1e-4, batch_size=16 if m < 99 else 250)
        plain.fit(x / np.abs(x).max(), y, epochs=1, progress=False)
for precision in ("float32", "bfloat16"):
    x = np.column_stack([rng.integers(0, c, 700) for c in (1, 7, 70000)] + [rng.normal(size=700)])
    embed = {0: (1, 3), 1: (7, 130), 2: (70000, 5)}
    net = gpumlp.MLP([4, 9, 2], embed=embed, precision=precision, backend="cpu")
    net.cost_and_gradients(x, rng.integers(0, 2, 700))
    for rule in ("adamw", "sgd"):
        gpumlp.Trainer(net, rule, batch_size=300).fit(x, x[:, 1] > 3, 1, progress=False)
for (n, parts), precision in itertools.product(((5, 1), (513, 2)),
                                               ("float32", "float64", "bfloat16")):
    x, y = rng.normal(size=(200, n)), rng.integers(0, 2, 200)
    net = gpumlp.MLP([n, n, n, n, 2], norm=["batch", "layer", "rms"], residual=True, dropout=0.2,
        gated=[None, "gelu", None], precision=precision, backend="cpu")
    net.cost_and_gradients(x, y)
    trainer = gpumlp.Trainer(net, "adamw", batch_size=150, accumulate=parts)
    trainer.fit(x, y, 1, progress=False)
print("done")
"""

POOL = """
#include "threads.hpp"
#include <cstdio>
#include <cstdlib>
struct Sum { long parts[64]; };
void piece(const void* p, gpumlp::int64 i) { ((Sum*)p)->parts[i] += i + 1; }
void run(int rounds) {
    for (int r = 0; r < rounds; ++r) {
        Sum sum = {};
        const int pieces = 2 + r % 60;
        gpumlp::pool().run(piece, &sum, pieces, 2 + r % 3);
        for (int i = 0; i < 64; ++i)
            if (sum.parts[i] != (i < pieces ? i + 1 : 0)) std::abort();
        if (r % 40 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));  // they sleep
    }
}
// Whether a thread that computes sees contention within two seconds
bool contended() {
    gpumlp::Contention contention;
    const auto end = gpumlp::Clock::now() + std::chrono::seconds(2);
    for (auto now = gpumlp::Clock::now(); now < end; now = gpumlp::Clock::now())
        if (contention.seen(now)) return true;
    return false;
}
// Two threads on the caller's core take two thirds of its time.
void contention() {
    cpu_set_t before, one;
    long long on_a_core = 0;  // stays 0 where the system does not count
    for (int i = 0; i < 50 && on_a_core == 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        FILE* const file = fopen("/proc/thread-self/schedstat", "r");
        if (file == nullptr) return;
        if (fscanf(file, "%lld", &on_a_core) != 1) on_a_core = 0;
        fclose(file);
    }
    if (on_a_core == 0 || sched_getaffinity(0, sizeof before, &before) != 0) return;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) return;
    std::atomic<bool> go_on{true};
    std::vector<std::thread> others;  // on the caller's core
    for (int i = 0; i < 2; ++i) others.emplace_back([&] { while (go_on) {} });
    if (!contended()) std::abort();
    go_on = false;
    for (auto& each : others) each.join();
    sched_setaffinity(0, sizeof before, &before);
}
int main() {
    contention();
    std::thread others[3];
    for (auto& each : others) each = std::thread(run, 1500);
    run(3000);
    for (auto& each : others) each.join();
    std::puts("done");
    std::fflush(stdout);
    std::_Exit(0);
}
"""

PRODUCTS = """
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "products.hpp"
using namespace gpumlp;
template <class T>
void multiply(int64 m, int64 n, int64 k, bool a_first, bool b_first, float beta) {
    const std::vector<T> a(m * k, T(1)), b(k * n, T(1));
    std::vector<float> out(m * n, 1.0f);
    const float factors[2] = {1.0f, beta};
    const View<T> left = a_first ? View<T>{a.data(), 1, m} : View<T>{a.data(), k, 1};
    const View<T> right = b_first ? View<T>{b.data(), 1, k} : View<T>{b.data(), n, 1};
    if (!amx::repays<T>(m, n, k)) std::abort();
    const Product<T, float> p = {m, n, k, left, right, out.data(), factors, nullptr, {}};
    multiply_part(p, {0, 0, m, n}, false);
    for (const float each : out)
        if (each != k + beta) std::abort();
}
int main() {
    for (int way = 0; way < 8; ++way) {
        const bool a_first = way & 1, b_first = way & 2;
        const float beta = way / 4;
        multiply<float>(161, 175, 95, a_first, b_first, beta);
        multiply<float>(90, 740, 530, a_first, b_first, beta);
        multiply<bfloat16>(3, 47, 7, a_first, b_first, beta);
        multiply<bfloat16>(33, 17, 1030, a_first, b_first, beta);
    }
    std::puts("done");
}
"""


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT,
        env=environment or os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


@pytest.mark.skipif(numpy_blas() is None, reason="NumPy's BLAS cannot be called directly")
def test_networks_under_address_and_undefined_sanitizers() -> None:
    text = run(sys.executable, "-c", NETWORKS, "source")
    path = cached(text, ".cpp", lambda: text)
    headers = sorted(source.headers().iterdir())
    arguments = (
        *FLAGS, "-O1", "-g1", "-shared", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined", f"-I{source.headers()}", str(path),
    )  # fmt: skip
    library = compiled([path, *filter(Path.is_file, headers)], arguments, ".so")
    environment = sanitizer_environment("address,undefined")
    assert run(sys.executable, "-c", NETWORKS, str(library), **environment).endswith("done\n")


@pytest.mark.parametrize("sanitize", ["thread", "address,undefined"])
def test_pool_under_sanitizers(sanitize: str) -> None:
    """Several threads use it, its own threads fall asleep, and each piece is done once."""
    path = cached(POOL, ".cpp", lambda: POOL)
    arguments = (
        *FLAGS, "-O1", "-g1", f"-fsanitize={sanitize}", f"-I{source.headers()}", str(path),
    )  # fmt: skip
    header = source.headers() / "threads.hpp"
    program = compiled([path, header, header.with_name("program.hpp")], arguments, "")
    assert run(str(program)) == "done\n"


@pytest.mark.skipif(not X86["avx512"].usable(), reason="needs a processor with AVX-512")
def test_products_on_tiles_under_sanitizers() -> None:
    """The tiles are emulated, so that the sanitizer sees what they read and write."""
    path = cached(PRODUCTS, ".cpp", lambda: PRODUCTS)
    arguments = (
        "-include", str(EMULATED_TILES), *X86["amx"].flags, *FLAGS, "-O1", "-g1",
        "-fsanitize=address,undefined", f"-I{source.headers()}", str(path),
    )  # fmt: skip
    headers = sorted(source.headers().glob("*.hpp"))
    assert run(str(compiled([path, EMULATED_TILES, *headers], arguments, ""))) == "done\n"
