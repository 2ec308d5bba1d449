"""Mutation testing: the pure modules are changed by a little, and some test has to fail for it.

    python tests/support/mutate.py [FILE ...] [--jobs N]

`[tool.mutate]` in pyproject.toml names the modules with their tests. cosmic-ray's operators and the
two below change the code. Every mutant lives in a fork of this process, which has loaded the
libraries, and is imported from memory: no file is touched. Hypothesis draws the same examples each
time. tests/support/equivalent_mutants.toml lists what no test can tell from the code, and why.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.util
import os
import resource
import sys
import tempfile
import tomllib
import traceback
from collections import Counter
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import parso
import pytest
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider
from hypothesis import Phase, settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
_CPU_SPARE_S = 3  # a mutant that works twice as long as the tests, and this, is a loop
_MEMORY = 24 << 30  # of addresses: torch alone takes many, a list that grows for ever takes all

# Of each operator its nearest neighbour and, of comparisons, the opposite. All of cosmic-ray's
# replacements would be 11 for each `+`, most of them a TypeError that any test finds.
OPERATORS = [
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in (
            *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_FloorDiv"),
            *("Pow_Mul", "RShift_LShift", "LShift_RShift", "BitOr_BitAnd", "BitAnd_BitOr"),
        )
    ),
    *(
        f"ReplaceComparisonOperator_{pair}"
        for pair in (
            *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
            *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
        )
    ),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not"),
    *("ReplaceUnaryOperator_Delete_Invert", "AddNot", "ReplaceTrueWithFalse"),
    *("ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
]


class Nudge(Operator):
    """A number changed by a little: a small whole one by 1, any other one by a fortieth."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield two positions for each number."""
        if isinstance(node, parso.python.tree.Number):
            yield from [(node.start_pos, node.end_pos)] * 2

    def mutate(self, node: Any, index: int) -> Any:
        """Return the number, more or less."""
        value, sign = ast.literal_eval(node.value), (1, -1)[index]
        if isinstance(value, int):
            node.value = str(value + sign * max(1, value // 40))
        else:
            node.value = repr(value * (1 + sign / 40) if value else sign / 40)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return what it makes of a 0.8."""
        return (Example("x = 0.8", "x = 0.78", occurrence=1),)


class Swap(Operator):
    """A function changed for its opposite."""

    OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any"} | {
        "floor": "ceil", "ceil": "floor", "minimum": "maximum", "maximum": "minimum",
    }  # fmt: skip

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield the position of each such name."""
        if isinstance(node, parso.python.tree.Name) and node.value in self.OPPOSITE:
            yield (node.start_pos, node.end_pos)

    def mutate(self, node: Any, index: int) -> Any:
        """Return the opposite."""
        assert index == 0
        node.value = self.OPPOSITE[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return what it makes of a min."""
        return (Example("min(x)", "max(x)"),)


@dataclass(frozen=True)
class Mutant:
    """A module's source with one change: the line of that number, before and after."""

    file: str
    source: str
    number: int
    line: str
    becomes: str


class _Imported(MetaPathFinder, SourceLoader):  # type: ignore[misc] # as importlib's own do
    """Gives one module another source."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = mutant.file.removesuffix(".py").replace("/", ".")
        self._path, self._source = str(ROOT / mutant.file), mutant.source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002
        if fullname == self._name:
            return importlib.util.spec_from_file_location(fullname, self._path, loader=self)
        return None

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        if path == self._path:
            return self._source.encode()
        raise OSError  # there is no compiled file of it


class _QuickFirst:
    """Runs the tests of one example before those of many: most mutants fall at once."""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))


def mutants(file: str, source: str) -> list[Mutant]:
    """Return each mutant of a module once; one that changes annotations alone is none."""
    provider = OperatorProvider()
    operators = [*(provider[name]() for name in OPERATORS), Nudge(), Swap()]
    seen, found, before = {_meaning(source)}, [], source.splitlines()
    for operator in operators:
        places = sum(
            len(list(operator.mutation_positions(node))) for node in ast_nodes(parso.parse(source))
        )
        for occurrence in range(places):
            changed = mutate_code(source, operator, occurrence)
            try:
                meaning = _meaning(changed)
            except SyntaxError:  # `/` of a signature isn't a division
                continue
            if meaning in seen:
                continue
            seen.add(meaning)
            after = changed.splitlines()
            place = next(n for n, line in enumerate(before) if line != after[n])
            line, becomes = (" ".join(text[place].split()) for text in (before, after))
            found.append(Mutant(file, changed, place + 1, line, becomes))
    return sorted(found, key=lambda one: one.number)


def _meaning(source: str) -> str:
    """Return the code as a tree, without what nobody reads when it runs, or only forbids.

    Those are annotations, and that a dataclass is frozen or slotted and a zip strict.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.arguments):  # `/` for `*`, where no number is divided
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.defaults = [*node.defaults, *(one for one in node.kw_defaults if one)]
            node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.keyword) and node.arg in {"frozen", "slots", "strict"}:
            node.value = ast.Constant(None)
    return ast.dump(tree)


def run(mutant: Mutant, tests: Sequence[str], cpu_s: float, loaded: Path | None = None) -> int:
    """Run the tests against a mutant in a fork; returns its process id. Its exit code is pytest's.

    The processor's seconds limit it, not the clock's, so that a busy machine kills no mutant. Into
    `loaded` go the names of the libraries that the tests have imported.
    """
    if pid := os.fork():
        return pid
    code = 70
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.meta_path.insert(0, _Imported(mutant))
        quiet = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler"]
        known = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is loaded already
        options = [*quiet, *known, "--hypothesis-profile=mutate", *tests]
        code = pytest.main(options, plugins=[_QuickFirst()])
        if loaded:
            loaded.write_text("\n".join(name for name, one in sys.modules.items() if _library(one)))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def _library(module: ModuleType) -> bool:
    origin = getattr(module.__spec__, "origin", None) if hasattr(module, "__spec__") else None
    return origin is not None and "site-packages" in origin


def judge(found: Sequence[Mutant], tests: Sequence[str], cpu_s: float, jobs: int) -> list[int]:
    """Return the exit code (or minus the signal) of the tests on each mutant."""
    codes, waiting = [0] * len(found), list(range(len(found)))
    running: dict[int, int] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            place = waiting.pop(0)
            running[run(found[place], tests, cpu_s)] = place
        pid, status = os.wait()
        codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
    return codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns 1 where too many survive, or the list of equivalent ones is out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help="modules of [tool.mutate]; all when none is given")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--every", type=int, default=1, help="only each Nth, for a first look")
    asked = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    settings.register_profile(
        "mutate", deadline=None, derandomize=True, database=None, max_examples=30,
        phases=(Phase.explicit, Phase.generate),
    )  # fmt: skip
    config = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["mutate"]
    equivalent = tomllib.loads(EQUIVALENT.read_text("utf-8"))["mutant"]
    unused = {(one["line"], one.get("becomes")) for one in equivalent}
    excused = set(unused)
    wanted = asked.files or list(config["modules"])
    total: Counter[str] = Counter()
    for file in wanted:
        source, tests = Path(file).read_text("utf-8"), config["modules"][file]
        cpu_s = _prepared(file, source, tests)
        every = mutants(file, source)
        keys = [{(one.line, one.becomes), (one.line, None)} & excused for one in every]
        unused -= set().union(*keys)
        found = [one for one, key in zip(every, keys, strict=True) if not key][:: asked.every]
        codes = judge(found, tests, 2 * cpu_s + _CPU_SPARE_S, asked.jobs)
        alive = [one for one, code in zip(found, codes, strict=True) if code == 0]
        for one in alive:
            print(f"{file}:{one.number}: {one.line}\n{'':8}survived as: {one.becomes}")
        tally = {"mutants": len(found), "killed": len(found) - len(alive)}
        tally["equivalent"] = sum(bool(key) for key in keys)
        total.update(tally)
        _show(file, tally)
    _show("all", total)
    for line, becomes in sorted(unused, key=str) if not asked.files else ():
        print(f"no such mutant: {line} -> {becomes or 'anything'}, in {EQUIVALENT.name}")
    few = total["killed"] < config["least"] * total["mutants"]
    return int(few or bool(unused and not asked.files))


def _prepared(file: str, source: str, tests: Sequence[str]) -> float:
    """Return the processor seconds of the tests on the module as it is; they have to pass.

    The libraries that they import are loaded then, so that no mutant has to.
    """
    with tempfile.TemporaryDirectory() as folder:
        loaded = Path(folder) / "loaded"
        pid = run(Mutant(file, source, 0, "", ""), tests, 600, loaded)
        _, status, used = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"{file}: its tests fail as it is: pytest {' '.join(tests)}")
        for name in loaded.read_text("utf-8").split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    return used.ru_utime + used.ru_stime


def _show(name: str, tally: dict[str, int] | Counter[str]) -> None:
    share = tally["killed"] / max(1, tally["mutants"])
    counted = f"{tally['killed']:5} of {tally['mutants']:5} killed ({share:.1%})"
    print(f"{name:28}{counted}, {tally['equivalent']} equivalent", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
