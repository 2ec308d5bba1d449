"""Capabilities and guards: the spec's models of what is measured, and the items they score.

A capability is rows of a dataset, prompts, a scorer and a goal; a guard has a largest drop in
place of the goal. Every score lies between 0 and 1, higher is better, whatever the scorer.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evals.tasks.task_files import is_file
from registry.chat.thoughts import thought_of
from registry.datasets.readers.reading import encoding_of
from registry.errors import DataError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from registry.datasets.formats.content import Message
    from registry.datasets.versions.row import Row

ANSWERS = ("choice", "exact", "number", "regex", "contains", "f1", "rouge", "perplexity")
"""The built-in scorers; `python:module:function` is one more form."""

Answer = Annotated[
    str,
    Field(
        pattern=r"^(choice|exact|number|regex|contains|f1|rouge|perplexity|python:[\w.]+:\w+)$",
        description=(
            "How an answer is scored: choice (the most likely label), exact (equal after trimming, "
            "spaces and case), number (the last number equals), regex (pattern matches), contains "
            "(the expected text occurs), f1 (words shared with the expected text, in any order), "
            "rouge (the same in order, ROUGE-L), perplexity (1 / perplexity per byte), or "
            "python:module:function, your own code, run because the spec names it."
        ),
        examples=["choice", "exact", "python:my_scorers:polite"],
    ),
]


LIMIT_SALT = "limit"
"""Salts the hash by which `limit` chooses."""

_COLUMN = re.compile(r"(?<!\{)\{[^\W\d][\w.-]*\}(?!\})")  # what is filled in; {{x}} is the text {x}
_WHOLE_COLUMN = re.compile(r"\{([^{}]+)\}")


class _Frozen(BaseModel):
    """Unknown keys are refused and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptsSpec(_Frozen):
    """The prompts to try; `{column}` is replaced by the item's column, `{labels}` by the labels."""

    zero_shot: str = Field("{input}", description="The user turn, without examples.")
    few_shot: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (), description="Numbers of examples to try, each as earlier turns of the conversation."
    )
    examples: tuple[Literal["random", "similar"], ...] = Field(
        ("random", "similar"),
        min_length=1,
        description=(
            "How few-shot examples are chosen, each way a prompt of its own: random (by hash, the "
            "same for every item) or similar (for each item, those most like it)."
        ),
    )
    cot: str | None = Field(
        None,
        description="The user turn that asks for reasoning; the answer is read after 'Answer:'.",
    )
    system: str | None = Field(None, description="The system turn, for every prompt.")

    @field_validator("zero_shot", "cot")
    @classmethod
    def _names_a_column(cls, text: str | None) -> str | None:
        if text is not None and not _COLUMN.search(text):
            message = "a prompt that names no column, such as {input}, asks every item the same"
            raise ValueError(message)
        if text is not None and "{output}" in _COLUMN.findall(text):
            message = "a prompt that names {output} tells the answer that it asks for"
            raise ValueError(message)
        return text


class _Scored(_Frozen):
    """What capabilities and guards on a dataset have in common."""

    prompts: PromptsSpec = Field(PromptsSpec(), description="The prompts to try.")
    labels: tuple[str, ...] | str | None = Field(
        None,
        description=(
            "For choice: the labels, or a file with them (a JSON list, or one a line), or "
            "'{column}': the column with each item's own list. Left out: every answer in the data."
        ),
    )
    pattern: str | None = Field(
        None,
        description=(
            "For regex: what the answer must match; {column} is replaced by the item's column, "
            "escaped."
        ),
    )
    limit: int | None = Field(
        None, ge=1, description="Score at most so many items, chosen by hash."
    )
    max_new_tokens: int = Field(
        64, ge=1, le=32_768, description="The longest answer that is generated, in tokens."
    )

    @property
    def labels_column(self) -> str | None:
        """The column with each item's own labels, if `labels` names one."""
        named = _WHOLE_COLUMN.fullmatch(self.labels) if isinstance(self.labels, str) else None
        return named[1] if named else None

    def _check(self, answer: str | None) -> None:
        if answer == "regex" and self.pattern is None:
            message = "answer: regex needs pattern"
            raise ValueError(message)
        if answer != "regex" and self.pattern is not None:
            message = "pattern is for answer: regex alone"
            raise ValueError(message)
        if self.pattern is not None:
            _check_pattern(self.pattern)
        if answer != "choice" and self.labels is not None:
            message = "labels are for answer: choice alone"
            raise ValueError(message)
        if isinstance(self.labels, tuple):
            check_labels(self.labels)
        if answer == "perplexity" and self.prompts.cot is not None:
            message = "perplexity scores a given text, so prompts.cot has no use there"
            raise ValueError(message)


class CapabilitySpec(_Scored):
    """Something the model should do: rows, a prompt, a scorer, a goal."""

    data: str = Field(description="The dataset with its rows.")
    answer: Answer
    goal: float = Field(gt=0, le=1, description="The mean score that is wanted, between 0 and 1.")
    margin: float = Field(
        0.02, ge=0, lt=1, description="How far below the goal still counts as met."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check(self.answer)
        return self


class GuardSpec(_Scored):
    """Something the model can do and must not lose: a dataset, or an lm-eval task."""

    data: str | None = Field(None, description="The dataset with its rows.")
    lm_eval: str | None = Field(
        None,
        min_length=1,
        description="The name of an installed lm-eval task, or a task's YAML file (.yaml, .yml).",
    )
    allow_code: bool = Field(
        default=False, description="Run the code of the task's file that lm_eval names."
    )
    answer: Answer | None = Field(None, description="As in a capability; needed with data.")
    max_drop: float = Field(
        0.02, gt=0, lt=1, description="The largest drop of the mean score that may be possible."
    )
    accept: bool = Field(
        default=False, description="Take the loss of this guard, by name and on the record."
    )
    replay: bool | None = Field(
        None,
        description=(
            "May its rows be trained on, so that it is kept? false: never, it is a witness of what "
            "nobody replays. Left out, the last of three or more guards with data is one."
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.data is None) == (self.lm_eval is None):
            message = "a guard needs either data or lm_eval, and not both"
            raise ValueError(message)
        if (self.data is None) != (self.answer is None):
            message = "answer goes with data: an lm_eval task brings its own scoring"
            raise ValueError(message)
        own = self.lm_eval is not None and is_file(self.lm_eval)
        if own and not self.allow_code:
            message = "lm_eval: a task file of your own is code; set allow_code: true to run it"
            raise ValueError(message)
        if self.allow_code and not own:
            message = "allow_code is for a task file of your own in lm_eval alone"
            raise ValueError(message)
        if self.replay and self.data is None:
            message = "replay: true needs data: an lm_eval task has no rows to replay"
            raise ValueError(message)
        self._check(self.answer)
        return self


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its expected answer.

    `fields` are what a prompt may name: input, output and the row's other columns. `history` are
    the turns before the last question; `text` is set for plain text rows (perplexity). Of a
    preference pair the chosen answer is expected. `labels` are the item's own choices, where each
    item brings its own; `reasoning` is the thought before its answer, which isn't part of it.
    """

    uid: int
    row_hash: str
    fields: Mapping[str, str]
    expected: str
    cluster: int
    history: tuple[Message, ...] = ()
    tools: str | None = None
    text: str | None = None
    source_file: str = ""
    source_line: int = 0
    labels: tuple[str, ...] = ()
    reasoning: str = ""

    @property
    def where(self) -> str | None:
        """Its file and line, as far as they are known."""
        return f"{self.source_file}:{self.source_line}" if self.source_file else None


def items_from_rows(
    rows: Iterable[Row], spec: CapabilitySpec | GuardSpec, *, whole: bool = False
) -> list[Item]:
    """Turn rows into items, at most `spec.limit` of them unless `whole`.

    The limit takes the rows whose salted hash is smallest, so that neither the order of the rows
    nor other rows decide about a row's place; the order of the rows is kept.

    Raises:
        UserError: a row has no question and answer, or no choices of its own where it should.
    """
    column = spec.labels_column
    chosen = [_item(row) if column is None else _choosing(_item(row), column) for row in rows]
    if whole or spec.limit is None or len(chosen) <= spec.limit:
        return chosen
    kept = {item.uid for item in sorted(chosen, key=_limit_order)[: spec.limit]}
    return [item for item in chosen if item.uid in kept]


def labels_of(spec: CapabilitySpec | GuardSpec, rows: Iterable[Row], root: Path) -> tuple[str, ...]:
    """Return the labels of a choice capability; `()` for other scorers, and for items' own.

    Args:
        spec: the capability or guard.
        rows: all rows of its dataset; used when the spec names no labels.
        root: the folder that a path in the spec is relative to.

    Raises:
        UserError: the file cannot be read, or the labels are fewer than two or repeat.
    """
    if spec.answer != "choice" or spec.labels_column is not None:
        return ()
    if isinstance(spec.labels, tuple):
        return spec.labels
    if spec.labels is not None:
        return _labels_from_file(root / spec.labels)
    return labels_from(spec, map(expected_of, rows))


def labels_from(spec: CapabilitySpec | GuardSpec, answers: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of a choice whose spec names none: every answer in its dataset.

    Raises:
        UserError: they are fewer than two, or one is empty.
    """
    return _checked(tuple(sorted(set(answers))), f"the answers of dataset {spec.data!r}")


def expected_of(row: Row) -> str:
    """Return the answer that is expected to the last question of a row.

    Raises:
        UserError: the row has no question and answer.
    """
    return _item(row).expected


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that no choice can be made from (ValueError, as pydantic wants it)."""
    if len(labels) < 2:  # noqa: PLR2004 - a choice has two sides
        message = f"a choice needs at least two labels, got {list(labels)}"
        raise ValueError(message)
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        message = f"labels occur twice: {repeated[:3]}"
        raise ValueError(message)
    if any(not label.strip() for label in labels):
        message = "a label is empty"
        raise ValueError(message)


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(_COLUMN.sub("x", pattern))
    except re.error as error:
        message = f"the pattern {pattern!r} is not valid: {error}"
        raise ValueError(message) from None


def _limit_order(item: Item) -> str:
    return hashlib.sha256(f"{LIMIT_SALT}:{item.row_hash}".encode()).hexdigest()


def _item(row: Row) -> Item:
    if row.kind == "text":
        text = row.messages[0].content
        return _make(row, {"input": text, "output": text}, text=text)
    turns = (*row.messages, *(row.chosen or ()))
    asked = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if asked is None or asked + 1 >= len(turns) or turns[asked + 1].role != "assistant":
        raise DataError(
            f"a {row.kind} row without a question and its answer can't be scored",
            where=f"{row.source_file}:{row.source_line}",
            expected="a user turn followed by an assistant turn",
        )
    reasoning, answer = thought_of(turns[asked + 1].content)
    if turns[asked + 1].tool_calls is not None:
        raise DataError(
            "the answer is a tool call, which no scorer reads",
            where=f"{row.source_file}:{row.source_line}",
            expected="an answer in words",
            fix="train on such rows from a dataset of the pool that no capability measures",
        )
    fields = {"input": turns[asked].content, "output": answer}
    return _make(row, fields, history=tuple(turns[:asked]), reasoning=reasoning)


def _make(
    row: Row,
    fields: dict[str, str],
    *,
    history: tuple[Message, ...] = (),
    text: str | None = None,
    reasoning: str = "",
) -> Item:
    columns = {name: _as_text(value) for name, value in json.loads(row.meta or "{}").items()}
    return Item(
        uid=row.uid,
        row_hash=row.row_hash,
        fields=columns | fields,
        expected=fields["output"],
        cluster=row.cluster,
        history=history,
        tools=row.tools,
        text=text,
        source_file=row.source_file,
        source_line=row.source_line,
        reasoning=reasoning,
    )


def _choosing(item: Item, column: str) -> Item:
    """Return the item with the choices that its row lists."""
    where = item.where or f"row {item.uid}"
    try:
        given = json.loads(item.fields[column])
    except KeyError:
        raise DataError(
            f"the row has no column '{column}', which labels names",
            where,
            expected=f"one of {', '.join(sorted(item.fields))}",
        ) from None
    except json.JSONDecodeError:
        given = None
    if not isinstance(given, list) or not all(isinstance(label, str) for label in given):
        raise DataError(f"column '{column}' is no list of texts", where, expected="the choices")
    labels = _checked(tuple(given), where)
    if item.expected not in labels:
        raise DataError(
            f"the answer {item.expected!r} is not among the row's own choices",
            where,
            expected=f"one of {', '.join(labels[:10])}",
        )
    return replace(item, labels=labels)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _labels_from_file(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding_of(path)).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"can't read the labels: {error}", where=str(path)) from error
    if path.suffix == ".json":
        try:
            labels = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpecError(f"not JSON: {error}", where=str(path)) from error
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise SpecError("not a list of texts", where=str(path), expected="a JSON list")
    else:
        labels = [line.strip() for line in text.splitlines() if line.strip()]
    return _checked(tuple(labels), str(path))


def _checked(labels: tuple[str, ...], where: str) -> tuple[str, ...]:
    try:
        check_labels(labels)
    except ValueError as error:
        raise SpecError(str(error), where=where) from error
    return labels
