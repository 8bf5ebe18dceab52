"""Words: the private language that the project once spoke does not come back."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRIVATE = re.compile(
    r"\b(rooms?|doors?|ledgers?|seams?|remed(y|ies)|winners?|oddit(y|ies)|rehearse[sd]?|told|unmet"
    r"|twins?|given_back|at_once)\b",
    re.IGNORECASE,
)
TEXTS = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md",
    *(path for folder in ("gpumlp", "kernels", "docs", "examples", "benchmarks", "tests")
      for path in sorted((ROOT / folder).rglob("*"))
      if path.suffix in (".py", ".md", ".cu", ".cuh", ".h") and "_build" not in path.parts
      and path.name not in ("changelog.md", Path(__file__).name)),
]  # fmt: skip


def test_no_private_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert not found, "\n".join(found)
    assert len(TEXTS) > 200
    assert PRIVATE.search("in the room that is behind the door")
