"""Scorers of generated answers: the answer against what was expected.

Every scorer gives a number from 0 to 1. `choice` and `perplexity` are scored by log-likelihood
instead (see tasks); a choice that was reasoned out in words is scored here, as its final answer.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import unicodedata
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING

from evals.tasks.numbers import MARKED, expected_number, last_number
from evals.tasks.prompts import fill
from registry.datasets.duplicates.tokens import HAN_AND_KANA, one_form
from registry.errors import DataError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from evals.tasks.capability import CapabilitySpec, GuardSpec, Item
    from evals.tasks.numbers import Number

    Scorer = Callable[[str, Item], float]

_SAID = re.compile(r"\banswer\s+is:?\s+(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_UNSPACED = re.compile(f"[{HAN_AND_KANA}]")  # no space divides words there
_DECORATION = " \t*_`\"'“”.。"


# What each answer is called in rouge_score: words in any order, and the longest run in order.
_OVERLAPS = {"f1": "rouge1", "rouge": "rougeL"}


def normal(text: str) -> str:
    """Return the text as `exact` and its like compare it.

    NFKC without zero-width characters, case folded, every run of white space one space, none at
    the ends.
    """
    return " ".join(unicodedata.normalize("NFKC", one_form(text).casefold()).split())


def words(text: str) -> list[str]:
    """Return the words of a text, case folded; every Chinese or Japanese character is one.

    A word is letters, digits, underscores and the marks over and under them.
    """
    apart = _UNSPACED.sub(r" \g<0> ", normal(text))
    return "".join(one if _in_word(one) else " " for one in apart).split()


def final_answer(text: str) -> str:
    """Return the answer at the end of reasoning.

    The last line that reads `Answer: …` or `#### …`; else what the last "the answer is" is
    followed by; else the last line that isn't empty. Quotes, emphasis and full stops around it are
    dropped.
    """
    for pattern in (MARKED, _SAID):
        found = pattern.findall(text)
        if found:
            said = found[-1] if isinstance(found[-1], str) else "".join(found[-1])
            return said.strip(_DECORATION)
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip(_DECORATION) if lines else ""


def scorer_of(spec: CapabilitySpec | GuardSpec, root: Path) -> Scorer:
    """Return the scorer of generated answers that the spec names.

    Args:
        spec: the capability or guard.
        root: the folder in which `python:` modules are looked for first.

    Raises:
        UserError: a `python:` function cannot be found, or a pattern is not valid.
    """
    answer = spec.answer or ""
    if answer.startswith("python:"):
        return _own(answer, root)
    if answer == "regex":
        return _matching(spec.pattern or "")
    if answer in _OVERLAPS:
        return _overlap(answer)
    return {
        "exact": _exact,
        "choice": _exact,
        "number": _number,
        "contains": _contains,
    }[answer]


def check_expected(spec: CapabilitySpec | GuardSpec, items: Iterable[Item]) -> None:
    """Refuse an expected answer that no answer could equal, before a model is asked.

    Raises:
        UserError: `answer: number`, and it is none; the row's file and line are named.
    """
    if spec.answer == "number":
        for item in items:
            _expected_number(item)


def code_path(answer: str, root: Path) -> Path:
    """Return the file that a `python:module:function` answer runs, without running it.

    Raises:
        UserError: there is no such module, or it is not one file of Python.
    """
    module = answer.split(":")[1]
    with _importing_from(root):
        try:
            found = importlib.util.find_spec(module)
        except ImportError:
            found = None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise SpecError(
            f"answer: {answer}: there is no module {module}",
            expected=f"{module.replace('.', '/')}.py in {root}, or an installed module",
        )
    return Path(found.origin)


def code_files(answer: str, root: Path) -> list[Path]:
    """Return the file of a `python:` answer and all that it imports from `root`; nothing is run.

    Raises:
        UserError: as `code_path`, or a file of them is not Python.
    """
    from modulefinder import ModuleFinder

    path, root = code_path(answer, root), root.resolve()
    if not path.resolve().is_relative_to(root):
        return [path]
    finder = ModuleFinder(path=[str(root)])
    try:
        finder.run_script(str(path))
    except (SyntaxError, ValueError) as error:
        where = f"{getattr(error, 'filename', None) or path}:{getattr(error, 'lineno', None) or 1}"
        raise SpecError(f"answer: {answer}: {error.args[0]}", where, expected="Python") from error
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    return sorted({path, *(Path(file) for file in files if file)})


def _exact(answer: str, item: Item) -> float:
    return float(normal(answer) == normal(item.expected))


def _contains(answer: str, item: Item) -> float:
    return float(normal(item.expected) in normal(answer))


def _number(answer: str, item: Item) -> float:
    given = last_number(answer)
    return float(given is not None and given.same(_expected_number(item)))


def _expected_number(item: Item) -> Number:
    expected = expected_number(item.expected)
    if expected is None:
        raise DataError(
            f"answer: number, but the expected answer {shortened(item.expected)} is not one number",
            where=item.where,
            expected="a number, as in 1,234.5, 3/4, 50% or 2e3",
            fix="change the row, or score it with answer: exact, contains or regex",
        )
    return expected


def _overlap(answer: str) -> Scorer:
    """Return the F-measure of the words that answer and expected text share."""
    from rouge_score.rouge_scorer import RougeScorer

    kind = _OVERLAPS[answer]
    rouge = RougeScorer([kind], tokenizer=_Words())

    def overlap(text: str, item: Item) -> float:
        if not words(item.expected):
            raise DataError(
                f"answer: {answer}, but the expected answer {item.expected!r} has no word in it",
                where=item.where,
            )
        return float(rouge.score(target=item.expected, prediction=text)[kind].fmeasure)

    return overlap


class _Words:
    """The tokenizer for rouge_score, whose own drops all but a to z and 0 to 9."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"


def _matching(pattern: str) -> Scorer:
    def matches(answer: str, item: Item) -> float:
        escaped = {name: re.escape(value) for name, value in item.fields.items()}
        filled = fill(pattern, escaped)
        try:
            return float(re.search(filled, answer) is not None)
        except re.error as error:
            raise SpecError(f"the pattern {filled!r} is not valid: {error}") from error

    return matches


def _own(answer: str, root: Path) -> Scorer:
    _, module, name = answer.split(":")
    code_path(answer, root)
    with _importing_from(root):
        try:
            function = getattr(importlib.import_module(module), name, None)
        except (Exception, SystemExit) as error:  # whatever the user's own module raises
            raise SpecError(f"answer: {answer}: importing it raised {error!r}") from error
    if not callable(function):
        raise SpecError(f"answer: {answer}: {module} has no function {name}")

    def own(text: str, item: Item) -> float:
        try:
            score = function(text, item.expected, dict(item.fields))
        except (Exception, SystemExit) as error:  # whatever the user's own code raises
            raise SpecError(
                f"answer: {answer} raised {error!r} for the answer {shortened(text)}",
                item.where,
                expected="function(answer, expected, fields) that gives a number from 0 to 1",
            ) from error
        if not isinstance(score, Real) or not 0 <= float(score) <= 1:
            raise SpecError(
                f"answer: {answer} gave {score!r}", item.where, expected="a number from 0 to 1"
            )
        return float(score)

    return own


@contextmanager
def _importing_from(root: Path) -> Iterator[None]:
    sys.path.insert(0, str(root))
    try:
        importlib.invalidate_caches()
        yield
    finally:
        sys.path.remove(str(root))
