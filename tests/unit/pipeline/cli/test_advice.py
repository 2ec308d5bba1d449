"""A command in an error's advice is one that works: its verb, its options and its arguments."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from pipeline.cli.main import app

COMMAND = re.compile(r"""\bgapmend ((?:"[^"]*"|'[^']*'|[^\s;`,.:"']+| )+)""")
# What is filled in: an id, a name or a folder.
FILLED = "FILLED"


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text that is given as `fix`, or says "Run `gapmend …", with its line."""
    parts = {id(one) for f in ast.walk(tree) if isinstance(f, ast.JoinedStr) for one in f.values}
    whole = [one for one in ast.walk(tree) if id(one) not in parts]
    given = [one.value for one in whole if isinstance(one, ast.keyword) and one.arg == "fix"]
    advice = {id(one) for value in given for one in ast.walk(value)}
    for node in whole:
        if isinstance(node, ast.Constant | ast.JoinedStr):
            text = flat(node)
            if id(node) in advice or "Run `gapmend" in text:
                yield node.lineno, text


def flat(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(flat, node.values))
    return FILLED if isinstance(node, ast.FormattedValue) else str(getattr(node, "value", ""))


def commands(root: Path) -> dict[str, str]:
    """Every command in an advice, with the place where it is first given."""
    found: dict[str, str] = {}
    folders = ("pipeline", "evals", "registry")
    for path in sorted(one for name in folders for one in root.glob(f"{name}/**/*.py")):
        source = path.read_text("utf-8")
        if "gapmend " not in source or ("fix=" not in source and "Run `" not in source):
            continue
        for line, text in texts(ast.parse(source)):
            for given in COMMAND.findall(text):
                found.setdefault(given.strip(), f"{path.relative_to(root)}:{line}")
    return found


@functools.cache
def whole() -> Any:
    """The command line as typer reads it, which takes a while."""
    return typer.main.get_command(app)


def wrong(given: str) -> str | None:
    """Why typer doesn't take a command; None where it does."""
    command = whole()
    arguments = shlex.split(given)
    try:
        context = command.make_context("gapmend", list(arguments))
        while getattr(command, "commands", None):
            left = [*context._protected_args, *context.args]
            name, command, arguments = command.resolve_command(context, left)
            context = command.make_context(name, list(arguments), parent=context)
    except typer.Exit:  # of --help
        return None
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return str(error.format_message())
    return None


def test_every_command_in_an_advice_is_taken(project_root: Path) -> None:
    found = commands(project_root)
    assert len(found) > 15
    assert {f"{at}: gapmend {one}": said for one, at in found.items() if (said := wrong(one))} == {}


def test_what_is_no_command_is_seen() -> None:
    assert "No such command" in str(wrong("mrege"))
    assert "No such option" in str(wrong("merge --adaptor x"))
    assert "Missing argument" in str(wrong("adapter tag"))
