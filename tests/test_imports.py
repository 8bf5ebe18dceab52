"""Imports have no circles, and no module imports from a floor above its own.

Every import counts, also those inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [  # bottom to top; a module belongs to the longest prefix that it matches
    ["gpumlp.errors", "gpumlp._version"],
    ["gpumlp.functions"],
    ["gpumlp.io", "gpumlp.storage"],
    ["gpumlp.distributed"],
    ["gpumlp.plots"],
    ["gpumlp.backends.declaration", "gpumlp.backends.feed"],
    ["gpumlp.backends.columns", "gpumlp.backends.sharing", "gpumlp.backends.stages"],
    ["gpumlp.backends.operations"],
    ["gpumlp.backends.numpy", "gpumlp.backends.cuda"],
    ["gpumlp.backends.cpu"],
    ["gpumlp.backends"],
    ["gpumlp.arrays"],
    ["gpumlp.checks", "gpumlp.weights"],
    ["gpumlp.backprop"],
    ["gpumlp.parameters"],
    ["gpumlp.step"],
    ["gpumlp.structure"],
    ["gpumlp.network"],
    ["gpumlp.ensemble"],
    ["gpumlp.loader"],
    ["gpumlp.training"],
    ["gpumlp.callbacks"],
    ["gpumlp"],
    ["gpumlp.data"],
    ["gpumlp.estimators"],
    ["gpumlp.search"],
    ["gpumlp.interop"],
    ["gpumlp.bench"],
    ["gpumlp.cli"],
    ["gpumlp.__main__"],
]
FLOOR = {prefix: height for height, floor in enumerate(FLOORS) for prefix in floor}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a file imports, a.b for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in modules:
                    yield submodule
                elif node.module in modules:
                    yield node.module


def floor(module: str) -> int:
    """Return the height of a module's floor."""
    parts = module.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next(FLOOR[prefix] for prefix in prefixes if prefix in FLOOR)


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Return for each module of the package the modules of the package that it imports."""
    modules = {module_name(path): path for path in (ROOT / "gpumlp").rglob("*.py")}
    return {
        name: set(imported(ast.parse(path.read_text(encoding="utf-8")), modules)) - {name}
        for name, path in modules.items()
    }


def test_no_import_circles(imports: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' → '.join(error.args[1][::-1])}")


def test_no_upward_imports(imports: dict[str, set[str]]) -> None:
    upward = [
        f"{name} imports {target}"
        for name, targets in imports.items()
        for target in targets
        if floor(target) > floor(name)
    ]
    assert not upward, "\n".join(sorted(upward))


def test_the_checks_find_circles_and_upward_imports() -> None:
    """The checks find a planted circle, a local import and one under TYPE_CHECKING."""
    source = "def f():\n    import gpumlp.cli\nif TYPE_CHECKING:\n    from gpumlp import training\n"
    modules = dict.fromkeys(("gpumlp", "gpumlp.cli", "gpumlp.training"), ROOT)
    assert set(imported(ast.parse(source), modules)) == {"gpumlp.training", "gpumlp.cli"}
    assert floor("gpumlp.cli.app") > floor("gpumlp.training.fit") > floor("gpumlp.errors")
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
