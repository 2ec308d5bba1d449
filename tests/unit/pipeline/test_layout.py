"""The layout's promises: light imports, layers, a recipe for every verb, pins for every package."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = (
    *("torch", "transformers", "lm_eval", "datasets", "polars", "peft", "scipy", "statsmodels"),
    *("starlette", "uvicorn", "altair"),
)
VERBS = (
    *("init", "check", "plan", "run", "ingest", "gap", "select", "train", "forget", "mend"),
    *("promote", "merge", "push", "pull", "sign", "verify", "export", "reproduce"),
    *("sql", "lineage", "openlineage", "status", "schema", "fsck", "rebuild"),
    *("erase", "gc", "snapshot", "leaks", "report", "ui", "chat", "serve"),
    "lm-eval",
)


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`."""
    report = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_a_package_loads_nothing_heavy() -> None:
    """One after another in one process: what is there at the end was loaded by one of them."""
    code = (
        "import sys, registry, evals, pipeline\n"
        "assert 'pipeline.api' not in sys.modules\n"  # it is looked up when it is asked for
        "import pipeline.cli.main\n"
        "from pipeline import Workspace\n"
        "import evals.scoring.plan"  # a plan's keys need no lm-eval
    )
    assert loaded_by(code).isdisjoint(HEAVY)


def test_the_probe_sees_a_heavy_import() -> None:
    assert "scipy" in loaded_by("import scipy")


def test_layers(project_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; lint_imports()"],
        cwd=project_root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "11 kept, 0 broken" in done.stdout, done.stdout + done.stderr


def recipes(justfile: str) -> dict[str, str]:
    """Name of every recipe and the comment line above it and its attributes."""
    line = r"^#\s*(.+)\n(?:\[\w+\]\n)*([a-z][a-z0-9-]*)(?: [^:\n]*)?:(?!=)"
    found = re.findall(line, justfile, re.MULTILINE)
    return {name: comment for comment, name in found}


def test_every_verb_has_a_commented_recipe_that_runs_it(project_root: Path) -> None:
    justfile = (project_root / "justfile").read_text("utf-8")
    assert set(VERBS) <= set(recipes(justfile))
    for verb in VERBS:
        assert re.search(rf"^    gapmend {verb}\b.*\"\$@\"$", justfile, re.MULTILINE), verb


def test_the_verbs_are_those_of_the_command_line_each_with_an_example() -> None:
    from pipeline.cli.main import app

    helps = {
        (command.name or command.callback.__name__): command.callback.__doc__ or ""
        for command in app.registered_commands
        if command.callback
    }
    assert set(helps) == set(VERBS)
    assert [verb for verb, text in helps.items() if f"Example: `gapmend {verb}" not in text] == []


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "import contextlib, io, pipeline.cli.main, sys; sys.argv = ['gapmend', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "    pipeline.cli.main.main()\n"
        "assert 'promote' in out.getvalue()\n"
        "assert ' '.join(pipeline.cli.main.mend.__doc__.split('\\n\\n')[0].split()) in "
        "' '.join(out.getvalue().split())"
    )
    assert loaded.isdisjoint({*HEAVY, "pydantic", "rich.markdown"})


def test_every_recipe_is_commented(project_root: Path) -> None:
    justfile = (project_root / "justfile").read_text("utf-8")
    names = re.findall(r"^([a-z][a-z0-9-]*)(?: [^:\n]*)?:(?!=)", justfile, re.MULTILINE)
    assert set(names) == set(recipes(justfile))


def test_every_dependency_is_pinned(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert (
        f"gapmend[{','.join(sorted(extras.keys() - {'dev', 'quants', 'vllm'}))}]" in extras["dev"]
    )
    wanted = project["dependencies"] + [
        one
        for extra, parts in extras.items()
        for one in parts
        if extra != "vllm" and not one.startswith("gapmend[")
    ]
    lines = (project_root / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-") for name in pins}
    names = {re.split(r"[<>=; ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - pinned == set()
    assert not [version for version in pins.values() if "+" in version]
