"""The figures of a GPU report beside their bars."""

import json

import pytest

from benchmarks.bars import (
    AMP,
    BF16,
    FLOOR,
    GRAPH,
    PRODUCTS,
    SANITIZED,
    SMALL,
    TESTS,
    WIDE,
    Figures,
    bars,
    epilogues,
    table,
)


def result(competitor, ratio=1.0, widths=WIDE, m=4096, **fields):
    """A result as `gpumlp bench --save` writes it, of a step that takes us a second."""
    case = {
        "name": "wide", "widths": widths, "batch_size": m, "activation": "gelu",
        "optimizer": fields.pop("optimizer", "adamw"),
        "precision": "bfloat16" if widths is WIDE else "float32",
        "loss": "softmax_cross_entropy", "busy": False,
    }  # fmt: skip
    case |= {} if widths is WIDE else {"activation": "relu"}
    return {
        "case": case, "backend": "cupy", "competitor": competitor, "status": "timed",
        "seconds": [1 / ratio] * 3, "ours": [1.0] * 3, "peak_bytes": 100, "first_step": {},
        "notes": {}, "summary": {"gpumlp_over_this": ratio},
    } | fields  # fmt: skip


@pytest.fixture(autouse=True)
def _no_figures_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.bars.RESULT", tmp_path / "kept" / "gpu.json")


def rows(folder, files, outcomes=()):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    for name, status in dict(outcomes).items():
        content = {"name": name, "status": status}
        (folder / f"{name}.outcome.json").write_text(json.dumps(content))
    figures = Figures(folder)
    return {row["bar"]: (row["figure"], row["status"]) for row in (b.row(figures) for b in bars())}


def test_the_ratio_of_ensembles(tmp_path):
    found = rows(tmp_path, {"ensembles": {"us_a_step": {"gpumlp": 60.0, "torch vmap": 100.0}}})
    name = "64 networks 512×3 tf32 adam @256, time over that of torch.func.vmap, compiled"
    assert found[name] == (0.6, "met")


def test_an_empty_folder_has_no_figures(tmp_path):
    assert set(rows(tmp_path, {}).values()) == {(None, "not measured")}


def test_ratios_of_steps(tmp_path):
    found = rows(tmp_path, {
        "bench-4096": {"results": [result(AMP, 0.87), result(BF16, 0.98)]},
        "bench-8192": {"results": [result(AMP, 0.85, m=8192), {"status": "failed"} | {
            "competitor": BF16, "case": {}, "backend": "cupy",
        }]},
        "bench-sgd": {"results": [result(AMP, 0.71, m=1024, optimizer="sgd")]},
        "bench-launch": {"results": [result(AMP, 0.4, SMALL, 256), result(GRAPH, 0.9, SMALL, 256)]},
        "gpu": {"results": [result(AMP, 9.0, m=1024)]},  # the page's own file is not read again
    })  # fmt: skip
    wide = "8192×8 bf16 gelu adamw @"
    assert found[f"{wide}4096, time over that of torch.compile AMP"] == (0.87, "met")
    assert found[f"{wide}4096, time over that of torch.compile with bf16 parameters"] == (
        0.98,
        "NOT MET",
    )
    assert found[f"{wide}8192, time over that of torch.compile AMP"] == (0.85, "met")
    assert found[f"{wide}8192, time over that of torch.compile with bf16 parameters"][0] is None
    assert found[f"{wide}1024, time over that of torch.compile AMP"][0] is None
    assert found["8192×8 bf16 gelu sgd @1024, time over that of torch.compile AMP"] == (
        0.71,
        "NOT MET",
    )
    assert found["512×4 fp32 relu adamw @256, time over that of torch.compile"] == (0.4, "met")
    assert found["the same, over that of torch's whole step as one graph"] == (0.9, "NOT MET")


def test_memory_first_step_products_and_accuracy(tmp_path):
    ours = result("gpumlp", peak_bytes=70, first_step={"cold": 11.0, "warm": 1.2})
    floor = result(FLOOR, seconds=[0.9, 0.9], ours=[1.0, 1.0], notes={"extra_seconds": 0.1})
    found = rows(tmp_path, {
        "bench": {"results": [ours, result(AMP), floor, result(PRODUCTS, seconds=[0.65] * 2,
                                                               ours=[0.8] * 2)]},
        "accuracy": {"accuracy": {"float32": [0.97, 0.96], "bfloat16": [0.96, 0.965]}},
    })  # fmt: skip
    assert found["peak memory over torch.compile AMP's"] == (0.7, "met")
    assert found["first step, cached, s"] == (1.2, "met")
    assert found["first step, not cached, s"] == (11, "NOT MET")
    assert found["our products, time over that of torch's"] == (
        pytest.approx(0.8 * 0.8 / 0.65),
        "met",
    )
    assert found["bf16 behind fp32 on mnist5k, points of accuracy"] == (pytest.approx(0.25), "met")


def test_slowest_kernel_of_those_that_no_cache_holds(tmp_path):
    def suite(*shares):
        return {
            "benchmarks": [{"name": f"k{s}", "extra_info": {"share_of_copy": s}} for s in shares]
        }

    products = {"benchmarks": [{"name": "p", "extra_info": {"tflops": 700}}]}
    files = {"kernels": suite(0.95, 0.91), "kernels-narrow": suite(0.2), "products": products}
    slowest = "slowest own kernel, share of a 2 GB copy's speed"
    assert rows(tmp_path, files)[slowest] == (0.91, "met")
    files["other-kernels"] = suite(0.89)
    assert rows(tmp_path, files)[slowest] == (0.89, "NOT MET")


@pytest.mark.parametrize(
    ("statuses", "row"),
    [
        ({}, (None, "not measured")),
        (dict.fromkeys(TESTS[:-1], "passed"), (None, "not measured")),
        (dict.fromkeys(TESTS, "passed"), (1, "met")),
        ({TESTS[0]: "FAILED"}, (0, "NOT MET")),
        (dict.fromkeys(TESTS, "passed") | {TESTS[0]: "missing"}, (None, "not measured")),
    ],
)
def test_all_parts_of_the_tests_must_pass(tmp_path, statuses, row):
    assert rows(tmp_path, {}, statuses)["tests/gpu, share of the parts that pass"] == row
    if statuses:
        other = rows(tmp_path, {}, dict.fromkeys(SANITIZED, "passed"))
        assert other["compute-sanitizer, share of the parts without a finding"] == (1, "met")


def test_a_file_that_was_not_completed_is_left_out(tmp_path):
    (tmp_path / "bench-1024.json").write_text('{"results": [')
    assert rows(tmp_path, {})["first step, cached, s"] == (None, "not measured")
    (tmp_path / "bench-1024.json").write_text("[1]")
    assert rows(tmp_path, {})["first step, cached, s"] == (None, "not measured")


def test_epilogues_that_were_measured(tmp_path):
    product = {
        "m": 4, "n": 8, "k": 16, "dtype": "bfloat16", "fused": False, "epilogue": "drelu_bgrad",
        "first_microseconds": 2500.0, "unfused_microseconds": 1700.0, "microseconds": 1700.0,
    }  # fmt: skip
    (tmp_path / "tune-relu.json").write_text(
        json.dumps({"products": [product, product | {"epilogue": None}]})
    )
    (tmp_path / "tune-gelu.json").write_text("Traceback")
    assert epilogues(Figures(tmp_path))[-1] == (
        "| tune-relu | 4×8×16 bfloat16 | drelu_bgrad | no | 2500 | 1700 | 1700 |"
    )
    assert len(epilogues(Figures(tmp_path))) == 6


def test_table_says_which_side_of_the_bar_is_good(tmp_path):
    lines = table(bar.row(Figures(tmp_path)) for bar in bars())
    assert "| peak memory over torch.compile AMP's | ≤ 0.75 |  | not measured |" in lines
    assert any(line.endswith("copy's speed | ≥ 0.9 |  | not measured |") for line in lines)
