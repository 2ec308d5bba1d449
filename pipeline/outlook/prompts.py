"""Prompts that don't fit the base's context, and how long prompts and rows are, in tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pipeline.outlook.finding import Finding
from pipeline.spec.subjects import subjects
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evals.tasks.capability import Item
    from pipeline.outlook.survey import Survey
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.chat.chat import Chat
    from registry.datasets.versions.row import Row


_TEMPLATE_TOKENS = 256
_SAMPLE = 16  # rows of a split whose lengths are taken for those of all


@dataclass
class Asked:
    """How a subject's rows are asked of the train base: their lengths, without asking.

    Attributes:
        ws: the workspace.
        what: the capability or guard.
        labels: that stand for all items.
    """

    ws: OpenWorkspace
    what: Subject
    labels: tuple[str, ...]

    @cached_property
    def chat(self) -> Chat:
        """The base's tokenizer and template."""
        return self.ws.models.chat(self.ws.spec.train.base)

    def tokens(self, item: Item) -> tuple[int, int]:
        """Return the tokens of an item's prompt, and of what is computed behind it.

        Raises:
            UserError: the template can't ask it.
        """
        if item.text is not None:
            return 0, self.count(item.text)
        asked = len(self.ids(item))
        labels = item.labels or self.labels
        if self.what.spec.answer == "choice" and labels:
            return asked, max(self.count(label) for label in labels)
        return asked, self.what.spec.max_new_tokens

    def ids(self, item: Item) -> list[int]:
        """Return the tokens of an item's prompt; none of a text, which is asked by itself.

        Raises:
            UserError: the template can't ask it.
        """
        from evals.tasks.prompts import arms_of, render_messages

        if item.text is not None:
            return []
        arm = arms_of(self.what.spec.prompts)[0]
        turns = render_messages(arm, item, (), self.labels)
        tools = json.loads(item.tools) if item.tools else None
        return self._ids(self.chat.context(turns, tools))

    def taken(self, item: Item) -> int:
        """Return the tokens that go through the model for an item: of a choice, all its labels.

        Raises:
            UserError: the template can't ask it.
        """
        asked, _ = self.tokens(item)
        if item.text is not None:
            return asked + self.count(item.text)
        labels = item.labels or self.labels
        if self.what.spec.answer == "choice" and labels:
            return asked + sum(self.count(label) for label in labels)
        return asked + min(self.what.spec.max_new_tokens, self.count(item.expected) + 1)

    def shown(self, item: Item) -> int:
        """Return the tokens of an item that is shown as an example.

        Raises:
            UserError: the template can't ask it.
        """
        return self.tokens(item)[0] + self.count(item.expected)

    def count(self, text: str) -> int:
        """Return the tokens of a text by itself."""
        return len(self._ids(text))

    def _ids(self, text: str) -> list[int]:
        found = self.chat.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return list(found)


def shared(asked: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all prompts share, which go through the model once. Pure.

    As the engine does: nothing where that saves too small a share.
    """
    from evals.engine.tree import WORTH_SHARE

    if len(asked) < 2:  # noqa: PLR2004 - nothing to share with
        return 0
    alike = (len(set(place)) == 1 for place in zip(*asked, strict=False))
    common = sum(1 for _ in takewhile(bool, alike))
    return common if common * len(asked) >= WORTH_SHARE * sum(map(len, asked)) else 0


def fits_below(what: Subject, context: int) -> int:
    """Return so many bytes that an item of no more fits a context, as the subject asks it.

    A token is at least a byte, and a chat template adds no more than 256.
    """
    prompts = what.spec.prompts
    text = "".join((prompts.zero_shot, prompts.system or ""))
    labels = what.spec.labels if isinstance(what.spec.labels, tuple) else ()
    listed = max(1_000, sum(len(label.encode()) + 2 for label in labels))
    written = len(text.encode()) + what.spec.max_new_tokens + _TEMPLATE_TOKENS
    written += listed * text.count("{labels}")
    return max(0, context - written) // max(1, text.count("{") - text.count("{labels}"))


def too_long(ws: OpenWorkspace, what: Subject, seen: Survey) -> Iterator[Finding]:
    """Yield that more of a subject's items than allowed are longer than the context, as asked."""
    if what.spec.answer == "perplexity" or what.spec.data is None:
        return  # a long text is scored in windows
    spec = ws.spec.datasets[what.spec.data]
    if not (rows := seen.long.rows):
        return
    context = ws.models.identity(ws.spec.train.base).context
    asked = Asked(ws, what, labels_in(what, seen))
    long = [(row, length) for row, length, _ in lengths(asked, rows) if length > context]
    many = seen.long.about(len(long))
    if many <= spec.allow_rejects * seen.long.of:
        return
    first, length = long[0]
    yield Finding(
        (what.section, what.name, "prompts"),
        f"{many:,} of {seen.long.of:,} items are longer than the context of base "
        f"'{ws.spec.train.base}', the first {first.source_file}:{first.source_line} with "
        f"{length:,} tokens, its answer included",
        expected=f"at most {context:,} tokens, and {spec.allow_rejects:.1%} longer ones",
        fix=f"shorten the prompt or the rows, lower max_new_tokens, or raise "
        f"datasets.{what.spec.data}.allow_rejects",
        stops=not spec.carved and seen.whole,
    )


def too_long_to_train(ws: OpenWorkspace, name: str, seen: Survey) -> Iterator[Finding]:
    """Yield that more of a dataset's rows for training than allowed are longer than the context."""
    train, context = ws.spec.train, ws.models.identity(ws.spec.train.base).context
    long = [(row, n) for row, n in _trained_lengths(ws, name, seen) if n > context]
    many, there = seen.long_taught.about(len(long)), seen.long_taught.of
    if many <= train.allow_rejects * there:
        return
    first, length = long[0]
    yield Finding(
        ("train", "pool"),
        f"{many:,} of {there:,} rows for training in dataset '{name}' are longer than the "
        f"context of base '{train.base}', the first {first.source_file}:{first.source_line} with "
        f"{length:,} tokens: select may stop at them",
        expected=f"at most {context:,} tokens, and {train.allow_rejects:.1%} longer ones",
        fix="shorten or drop them, or raise train.allow_rejects",
    )


def _trained_lengths(ws: OpenWorkspace, name: str, seen: Survey) -> Iterator[tuple[Row, int]]:
    """Yield a dataset's long rows for training with the tokens of each as it is trained."""
    from pipeline.selection.selection import is_trainable, render
    from pipeline.training.examples.encode import turns_of
    from pipeline.training.examples.pairs import answered
    from registry.chat.tokens import TextTokens

    if not seen.long_taught.rows:
        return
    chat = ws.models.chat(ws.spec.train.base)
    tokens = TextTokens(chat.tokenizer)
    what = next((one for one in subjects(ws.spec) if one.spec.data == name), None)
    labels = labels_in(what, seen) if what else ()
    for row in seen.long_taught.rows:
        if not is_trainable(row, ws.spec.train.objective):
            continue
        try:
            examples = answered(render(ws, row, what.name if what else name, labels=labels))
            turns = [turn for one in examples for turn in turns_of(chat, one)]
        except UserError:  # check names it
            continue
        pairs = tokens.pairs([turn.context for turn in turns], [turn.target for turn in turns])
        yield row, max(len(context) + len(target) for context, target in pairs)


def examples_too_long(ws: OpenWorkspace, what: Subject, seen: Survey) -> Iterator[Finding]:
    """Yield numbers of examples that don't fit the context, by the mean length of some."""
    counts = what.spec.prompts.few_shot if what.role == "capability" else ()
    if not counts:
        return
    some = [row for rows in seen.some.values() for row in rows[:_SAMPLE]]
    found = list(lengths(Asked(ws, what, labels_in(what, seen)), some))
    if not found:
        return
    own = sum(asking for _, asking, _ in found) / len(found)
    shown = sum(showing for _, _, showing in found) / len(found)
    context = ws.models.identity(ws.spec.train.base).context
    if over := [str(count) for count in counts if own + count * shown > context]:
        yield Finding(
            (what.section, what.name, "prompts", "few_shot"),
            f"{' and '.join(over)} examples of about {shown:,.0f} tokens each are longer than the "
            f"context of base '{ws.spec.train.base}': gap leaves them out",
            expected=f"at most {context:,} tokens, with the question and its answer",
            fix="ask for fewer",
        )


def lengths(asked: Asked, rows: Sequence[Row]) -> Iterator[tuple[Row, int, int]]:
    """Yield rows with the tokens that asking each takes, its answer included, and showing it."""
    from evals.tasks.capability import items_from_rows

    for row in rows:
        try:
            (item,) = items_from_rows([row], asked.what.spec, whole=True)
            asking, behind = asked.tokens(item)
            yield row, asking + behind, asking + asked.count(item.expected)
        except UserError:  # said where it is asked first, or refused with the dataset's rejects
            continue


def labels_in(what: Subject, seen: Survey) -> tuple[str, ...]:
    """Return the labels of a choice: the spec's, else those of the rows that were kept."""
    from evals.tasks.capability import expected_of

    spec: Any = what.spec
    if spec.answer != "choice" or spec.labels_column is not None:
        return ()
    if isinstance(spec.labels, tuple):
        return spec.labels
    found: dict[str, None] = {}
    for row in (row for rows in seen.some.values() for row in rows):
        try:
            found[expected_of(row)] = None
        except UserError:
            continue
    return tuple(sorted(found))
