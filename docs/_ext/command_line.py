"""The directive `commands`: the help of each command, in a section of its own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import typer.main
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gpumlp.cli.app import app as gpumlp_app


def parameters(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    """Yield each argument and option as the user writes it, and its help."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            yield record


def as_markdown(text: str) -> str:
    """Return a help text with its options marked as code."""
    parts = re.split(r"(`[^`]*`)", text)  # every second one is code already
    parts[::2] = [re.sub(r"--[a-z][\w-]*", r"`\g<0>`", p).replace("*", r"\*") for p in parts[::2]]
    return "".join(parts)


def described(command: Any, context: Any) -> str:
    """Return a command's usage, help, arguments and options as Markdown."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = textwrap.dedent(command.help or "").strip()
    parts = [f"```text\n{usage}\n```", as_markdown(text)]
    parts += [
        f"`{written.strip()}`\n: {as_markdown(' '.join(text.split())) or '…'}"
        for written, text in parameters(command, context)
    ]
    return "\n\n".join(parts) + "\n"


class Commands(SphinxDirective):
    """The directive `commands`."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each command."""
        group: Any = typer.main.get_command(gpumlp_app)
        above = group.make_context("gpumlp", [], resilient_parsing=True)
        sections: list[nodes.Node] = []
        for name in group.list_commands(above):
            command = group.get_command(above, name)
            context = command.make_context(name, [], parent=above, resilient_parsing=True)
            section = nodes.section(ids=[f"gpumlp-{name}"], names=[f"gpumlp {name}"])
            section += nodes.title(text=f"gpumlp {name}")
            section += self.parse_text_to_nodes(described(command, context))
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
