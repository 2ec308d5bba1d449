"""Prompts that don't fit the base's context, and how long prompts and rows are, in tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.outlook.finding import Finding
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
        from evals.tasks.prompts import arms_of, render_messages

        if item.text is not None:
            return 0, self._count(item.text)
        arm = arms_of(self.what.spec.prompts)[0]
        turns = render_messages(arm, item, (), self.labels)
        tools = json.loads(item.tools) if item.tools else None
        asked = self._count(self.chat.context(turns, tools))
        labels = item.labels or self.labels
        if self.what.spec.answer == "choice" and labels:
            return asked, max(self._count(label) for label in labels)
        return asked, self.what.spec.max_new_tokens

    def taken(self, item: Item) -> int:
        """Return the tokens that go through the model for an item: of a choice, all its labels.

        Raises:
            UserError: the template can't ask it.
        """
        asked, _ = self.tokens(item)
        if item.text is not None:
            return asked + self._count(item.text)
        labels = item.labels or self.labels
        if self.what.spec.answer == "choice" and labels:
            return asked + sum(self._count(label) for label in labels)
        return asked + min(self.what.spec.max_new_tokens, self._count(item.expected) + 1)

    def shown(self, item: Item) -> int:
        """Return the tokens of an item that is shown as an example.

        Raises:
            UserError: the template can't ask it.
        """
        return self.tokens(item)[0] + self._count(item.expected)

    def _count(self, text: str) -> int:
        return len(self.chat.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


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
    rows = [row for row in seen.long if row.split != "train" or spec.carved]
    if not rows:
        return
    context = ws.models.identity(ws.spec.train.base).context
    asked = Asked(ws, what, labels_in(what, seen))
    long = [(row, length) for row, length in lengths(asked, rows) if length > context]
    measured = {split for split in ("dev", "test") if split not in spec.carved}
    looked_at = sum(seen.rows.splits.get(split, 0) for split in measured) or sum(
        seen.rows.splits.values()
    )
    if len(long) <= spec.allow_rejects * looked_at:
        return
    first, length = long[0]
    more = f" of at least {seen.many:,} long ones" if seen.many > len(seen.long) else ""
    yield Finding(
        (what.section, what.name, "prompts"),
        f"{len(long):,}{more} of {looked_at:,} items are longer than the context of base "
        f"'{ws.spec.train.base}', the first {first.source_file}:{first.source_line} with "
        f"{length:,} tokens, its answer included",
        expected=f"at most {context:,} tokens, and {spec.allow_rejects:.1%} longer ones",
        fix=f"shorten the prompt or the rows, lower max_new_tokens, or raise "
        f"datasets.{what.spec.data}.allow_rejects",
        stops=not spec.carved and seen.whole,
    )


def lengths(asked: Asked, rows: Sequence[Row]) -> Iterator[tuple[Row, int]]:
    """Yield rows with the tokens that asking each takes, its answer included."""
    from evals.tasks.capability import items_from_rows

    for row in rows:
        try:
            (item,) = items_from_rows([row], asked.what.spec, whole=True)
            yield row, sum(asked.tokens(item))
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
