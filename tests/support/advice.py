"""What an error of the command line advises, taken from the printed text and carried out."""

import ast
import re
import shlex
from typing import NamedTuple

import pandas
import typer

from gpumlp.cli.app import app

COMMANDS = typer.main.get_command(app).commands
LINE = r"pandas\.read_\w+\(.*?index=False\)"
FLAG = r"(?<![\"\w-])--[a-z][\w-]*"
WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"])+"""
PART = re.compile(
    rf"(?P<line>{LINE})|(?P<omit>leave (?:it|them) out)|(?P<out>leave out )?(?P<flag>{FLAG})"
    "(?P<rest>.*)"
)


class Step(NamedTuple):
    """One thing to do: run a line of pandas, or give or leave out an option."""

    line: str = ""
    flag: str = ""
    value: str | None = None
    leave_out: bool = False


def advice(error, command):
    """The corrections that an error names, in its order; each is a list of steps for all at once.

    An option is read as a shell reads it. Whatever stands before the first semicolon or colon, such
    as the option that the error is about, is no advice.
    """
    text = error.removeprefix("gpumlp: error: ").rstrip("\n")
    at = re.search(r"[;:] |\Z", text).end()
    about, corrections, end = re.findall(FLAG, text[:at]), [], at
    while found := PART.search(text, at):
        at, between = found.end(), text[end : found.start()]
        if found["omit"]:
            steps = [Step(flag=flag, leave_out=True) for flag in about]
        elif found["flag"]:
            value, length = _value(command, found["flag"], found["rest"])
            steps, at = [Step("", found["flag"], value, bool(found["out"]))], found.start("rest")
            at += length
        else:
            steps = [Step(line=found["line"])]
        if corrections and " and " in between and " or " not in between:
            corrections[-1] += steps
        elif steps:
            corrections.append(steps)
        end = at
    return corrections


def carried_out(steps, arguments, path, values):
    """The arguments of the command after the steps; `values` are for words such as EPOCHS."""
    arguments = [*map(str, arguments)]
    for step in steps:
        if step.line:
            eval(step.line, {"pandas": pandas})
            new = re.findall(r"new\.\w+", step.line)[-1]
            arguments = [str(path.parent / new) if a == str(path) else a for a in arguments]
            continue
        option = _option(arguments[0], step.flag)
        names = {*option.opts, *option.secondary_opts}
        if step.leave_out or not option.multiple:
            for at in [i for i, a in enumerate(arguments) if a in names][::-1]:
                del arguments[at : at + (1 if option.is_flag else 2)]
        if not step.leave_out:
            value = [] if step.value is None else [values.get(step.value, step.value)]
            arguments += [step.flag, *map(str, value)]
    return arguments


def _option(command, flag):
    known = {
        name: parameter
        for parameter in COMMANDS[command].params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    assert flag in known, f"{command} has no option {flag}"
    return known[flag]


def _value(command, flag, rest):
    """The value of an option in the text after its name, and its length; None for a switch.

    An option without a value, as in "lower --lr", has its own name as the value.
    """
    if _option(command, flag).is_flag:
        return None, 0
    found = re.match(rf" ({WORD})", rest)
    if not found:
        return flag, 0
    word = re.sub(r"[,;.:)]+$", "", found[1])
    return shlex.split(word)[0], 1 + len(word)


# ---- Python --------------------------------------------------------------------------------------

SETTING = re.compile(r"""\b([a-z_]\w*)=("[^"]*"|'[^']*'|\([^()]*\)|\{[^{}]*\}|[\w.]+)""")


def settings_of(message, names):
    """The settings that a message of the Python API proposes after its first semicolon.

    Args:
        message: its text.
        names: what names such as PATH mean in it.
    """
    text = message.partition("; ")[2]
    return [{name: eval(value, dict(names))} for name, value in SETTING.findall(text)]


def call_of(message, names):
    """The value of the first call, or of x[...], that a message proposes after its beginning."""
    text = re.split("[;:] ", message, maxsplit=1)[1]
    text = text[re.search(r"[\w.]+\(|x\[", text).start() :]
    opened = [text[: i + 1] for i, c in enumerate(text) if c in ")]"]
    whole = next(part for part in opened if _balanced(part))
    return eval(whole, dict(names))


def _balanced(text):
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]"))


# ---- the code ------------------------------------------------------------------------------------

HELP = {"option", "switch", "argument", "partial", "model", "new_data"}  # they declare options
ADVISES = re.compile(
    r" --[a-z]|pip install|\bgpumlp [a-z]+ --|index=False|\b[a-z_]+=[A-Za-z0-9\"\[({]"
    r"|[a-z_}][.][a-z_]+[(]"
)


def messages(folder):
    """The texts in the code that seem to name an option, a setting or a call to use.

    An f-string has {} for each of its fields.
    """
    found = []
    for path in sorted(folder.rglob("*.py")):
        found += [text for text in _texts(ast.parse(path.read_text())) if " " in text.strip()]
    return [text for text in found if ADVISES.search(text)]


def _texts(node):
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
        return
    called = node.func if isinstance(node, ast.Call) else None
    if getattr(called, "attr", getattr(called, "id", "")) in HELP:
        return
    if isinstance(node, ast.JoinedStr):
        yield "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for each in ast.iter_child_nodes(node):
            yield from _texts(each)
