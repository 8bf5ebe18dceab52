"""Two directives that run programs while the site is built.

```{example} 01_digits```    shows an example, its output, and the pictures that it draws
```{picture} lr.png```       shows a picture that the page's own blocks of Python draw

Programs run in _build/examples.  They run again when they or the library have changed.
`-D run_examples=0` shows the sources alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUNS = DOCS / "_build" / "examples"
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
logger = logging.getLogger(__name__)


def run(path: Path) -> Path | None:
    """Run a program, or a page's blocks, and return the folder of its files and of `printed.txt`.

    Returns None where a library is missing.
    """
    folder = RUNS / path.stem
    printed = folder / "printed.txt"
    sources = [path, *(ROOT / "gpumlp").rglob("*.py")]
    newest = max(source.stat().st_mtime for source in sources)
    if printed.exists() and printed.stat().st_mtime > newest:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    program = path
    if path.suffix == ".md":
        program = folder / "blocks.py"
        program.write_text("\n".join(BLOCK.findall(path.read_text("utf-8"))), encoding="utf-8")
    # one thread: spinning threads would slow down every other process of this machine
    single_thread = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    )
    environment = os.environ | single_thread | {"PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True, encoding="utf-8", check=False, cwd=folder, env=environment,
    )  # fmt: skip
    if "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        logger.warning("%s failed:\n%s", path.name, done.stderr)
        return None
    printed.write_text(done.stdout, encoding="utf-8")
    return folder


class Example(SphinxDirective):
    """The directive `example`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the source, and the output where the example was run."""
        path = ROOT / "examples" / f"{self.arguments[0]}.py"
        text = f"```{{literalinclude}} /../examples/{path.name}\n:language: python\n```\n"
        folder = run(path) if self.config.run_examples else None
        if folder is not None:
            printed = folder.relative_to(DOCS) / "printed.txt"
            text += f"It prints\n\n```{{literalinclude}} /{printed}\n:language: text\n```\n"
            for picture in sorted(folder.glob("*.png")):
                text += f"\n![{path.stem}](/{picture.relative_to(DOCS)})\n"
        self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(text)


class Picture(SphinxDirective):
    """The directive `picture`; its content is the text for readers who cannot see it."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the picture, where the page's blocks were run."""
        page = Path(self.env.doc2path(self.env.docname))
        folder = run(page) if self.config.run_examples else None
        if folder is None:
            return []
        at = (folder / self.arguments[0]).relative_to(DOCS)
        return self.parse_text_to_nodes(f"![{' '.join(self.content)}](/{at})\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_config_value("run_examples", True, "env")
    app.add_directive("example", Example)
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}
