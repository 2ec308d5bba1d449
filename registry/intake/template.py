"""The check of a chat template from outside: read, and rendered in a process of its own.

transformers renders templates in a sandbox that refuses what reaches for Python's insides, but
only when it gets there; so all of the template is read for it too, whatever turns would lead
there. A loop without end is no crime in the sandbox, so the process gets little time and memory.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.store.filenames import TOKENIZER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 20  # of CPU, most of them for importing transformers
_WALL = 30  # times as long by the clock: on a busy machine a process gets little of it
_MEMORY = 8 << 30  # bytes of addresses; torch maps several GiB
_TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "And now?"},
]
_CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}
_OTHER_TURNS: list[list[dict[str, Any]]] = [
    [{"role": "system", "content": "Be kind"}, *_TURNS],
    [
        _TURNS[0],
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "name": "look", "content": "seen"},
        {"role": "assistant", "content": "It is there"},
    ],
]
_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}


def check_templates(folder: Path, where: str) -> None:
    """Render every chat template in a folder once, each in a process of its own.

    Raises:
        UserError: one tries to leave the sandbox, isn't a template, or doesn't end.
    """
    for text, name in templates_of(folder, where):
        check_text(text, f"{where}: {name}")


def templates_of(folder: Path, where: str) -> Iterator[tuple[str, str]]:
    """Yield the text of every chat template in a folder, with the file that it is in.

    Raises:
        UserError: a file that should have them can't be read.
    """
    files = [folder / "chat_template.jinja", *sorted(folder.glob("additional_chat_templates/*"))]
    for path in files:
        if path.is_file():
            yield path.read_text("utf-8", errors="replace"), path.name
    for name in (TOKENIZER_CONFIG, "chat_template.json"):
        config = folder / name
        given = read_object(config, where).get("chat_template") if config.is_file() else None
        entries = given if isinstance(given, list) else [given]
        for entry in entries:
            texts = entry.values() if isinstance(entry, dict) else [entry]
            for text in texts:
                if isinstance(text, str):
                    yield text, config.name


def read_object(path: Path, where: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UserError: it is none.
    """
    try:
        given = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} can't be read ({type(error).__name__})", where) from None
    if not isinstance(given, dict):
        raise ModelError(f"{path.name} is no JSON object", where)
    return given


def check_text(template: str, where: str) -> None:
    """Render a chat template; `where` is for messages.

    Raises:
        UserError: it tries to leave the sandbox, isn't a template, or doesn't end. One that only
            refuses these turns is fine.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "registry.intake.template", str(_SECONDS)],
            input=template,
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS * _WALL,
            cwd=Path(__file__).resolve().parents[2],
        )
    except subprocess.TimeoutExpired:
        raise ModelError("the chat template doesn't end", where) from None
    if done.returncode < 0:
        raise ModelError("the chat template takes too much time or memory", where)
    if done.returncode:
        said = (done.stdout.strip().splitlines() or ["it can't be rendered"])[-1]
        raise ModelError(f"the chat template is refused: {said}", where)


def _limit(seconds: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def wrong_with(template: str) -> str | None:
    """Return what is wrong with a template, or None."""
    from jinja2 import TemplateSyntaxError
    from jinja2.exceptions import SecurityError, TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    def rendered(turns: list[dict[str, Any]], *, tools: bool, prompt: bool) -> None:
        render_jinja_template(
            [turns],
            tools=[_TOOL] if tools else None,
            chat_template=template,
            add_generation_prompt=prompt,
        )

    try:
        if reached := _reaches(template):
            return f"it reaches for {reached}"
        rendered(_TURNS, tools=False, prompt=True)
    except (SecurityError, TemplateSyntaxError) as error:
        return f"{type(error).__name__}: {error}"
    except TemplateError:
        pass  # `raise_exception` of its own: other turns may suit it
    except (MemoryError, OverflowError, RecursionError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    for turns, tools, prompt in itertools.product(_OTHER_TURNS, (False, True), (False, True)):
        try:
            rendered(turns, tools=tools, prompt=prompt)
        except (SecurityError, MemoryError, OverflowError, RecursionError) as error:
            return f"{type(error).__name__}: {error}"
        except (TemplateError, ValueError, TypeError, AttributeError, KeyError):
            pass  # it has no such turns
    return None


def _reaches(template: str) -> str | None:
    """Return the first of Python's inner names that a template asks for in any of its branches."""
    from jinja2 import nodes
    from transformers.utils.chat_template_utils import _compile_jinja_template

    # There is no public way to the environment whose tags (`generation`) templates may use.
    tree = _compile_jinja_template(template).environment.parse(template)
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter)):
        name = node.attr if isinstance(node, nodes.Getattr) else None
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            name = node.arg.value
        if isinstance(node, nodes.Filter) and node.name in {"attr", "map"}:
            name = next((a.value for a in node.args if isinstance(a, nodes.Const)), None)
        if isinstance(name, str) and name.startswith("__"):
            return name
    return None


if __name__ == "__main__":
    _limit(int(sys.argv[1]))
    wrong = wrong_with(sys.stdin.read())
    if wrong is not None:
        sys.stdout.write(" ".join(wrong.split()) + "\n")
        sys.exit(1)
