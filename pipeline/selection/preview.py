"""A row as the model will see it: by the train base's chat template, if the base is at hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from registry.chat.messages import as_turn
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.spec.subjects import Subject
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.chat.chat import Chat
    from registry.datasets.versions.row import Row


@dataclass(frozen=True, slots=True)
class SeenRow:
    """One row as the model will see it.

    Attributes:
        which: `shortest`, `median` or `longest` of the sample.
        file: where it stands.
        line: from 1.
        kind: of the row.
        text: what the model reads, the answer with it.
        rejected: of a preference row, what it would read with the answer that is worse.
        label: of a feedback row, whether the answer is good.
    """

    which: str
    file: str
    line: int
    kind: str
    text: str
    rejected: str | None = None
    label: bool | None = None


@dataclass(frozen=True)
class BaseAtHand:
    """The train base's tokenizer and template, or None and why; `how` is for people."""

    chat: Chat | None
    how: str


def base_at_hand(ws: OpenWorkspace) -> BaseAtHand:
    """Load what rows are read by; a base that isn't here keeps nobody from looking at data."""
    base = ws.spec.train.base
    try:
        chat = ws.models.chat(base)
    except UserError as error:
        return BaseAtHand(None, f"plainly: {error}")
    if not chat.tokenizer.chat_template:
        return BaseAtHand(chat, f"as base {base} reads them, which has no chat template")
    return BaseAtHand(chat, f"by the chat template of base {base}")


@dataclass(frozen=True)
class Reader:
    """What a dataset's rows are read by.

    Attributes:
        ws: whose spec has the prompts.
        chat: the base's tokenizer and template; None if it isn't here.
        subject: the capability or guard on this dataset, whose prompt its rows get.
        labels: fill `{labels}` in that prompt.
        how: all this, for people.
    """

    ws: OpenWorkspace
    chat: Chat | None
    subject: Subject | None
    labels: tuple[str, ...]
    how: str

    @classmethod
    def of(cls, ws: OpenWorkspace, dataset: str, rows: Sequence[Row], base: BaseAtHand) -> Self:
        """Return what reads a dataset.

        Args:
            ws: the workspace.
            dataset: its name.
            rows: some of it, whose answers are the labels where the spec lists none.
            base: of `base_at_hand(ws)`.
        """
        from pipeline.spec.subjects import subjects

        subject = next((one for one in subjects(ws.spec) if one.spec.data == dataset), None)
        asked = "" if subject is None else f", with the prompt of {subject.name}"
        return cls(ws, base.chat, subject, _labels(ws, subject, rows), base.how + asked)

    def see(self, which: str, row: Row) -> SeenRow:
        """Return the row as it is read; what the template refuses is said in its place.

        Raises:
            UserError: the prompt names a column that the row lacks.
        """
        tools = json.loads(row.tools) if row.tools else None
        worse = [as_turn(t) for t in (*row.messages, *row.rejected)] if row.rejected else None
        return SeenRow(
            which=which,
            file=row.source_file,
            line=row.source_line,
            kind=row.kind,
            text=self._text(self._asked(row), tools),
            rejected=self._text(worse, tools) if worse else None,
            label=row.label,
        )

    def _asked(self, row: Row) -> list[dict[str, Any]]:
        """Return the turns with the answer; a capability asks by its zero-shot prompt."""
        from pipeline.selection.selection import render

        if self.subject is None or row.kind != "sft":
            return [as_turn(turn) for turn in (*row.messages, *(row.chosen or ()))]
        example = render(self.ws, row, self.subject.name, labels=self.labels)
        turns = getattr(example, "messages", ())
        return [{key: said for key, said in turn.items() if key != "train"} for turn in turns]

    def _text(self, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        if turns[0]["role"] == "text":
            return str(turns[0]["content"])
        if self.chat is None:
            head = [f"tools: {json.dumps(tools, ensure_ascii=False)}"] if tools else []
            return "\n".join([*head, *(_plain(turn) for turn in turns)])
        try:
            return self.chat.render(turns, tools=tools, add_generation_prompt=False)
        except UserError as error:
            return f"({error.what})"


def _labels(ws: OpenWorkspace, subject: Subject | None, rows: Sequence[Row]) -> tuple[str, ...]:
    from evals.tasks.capability import labels_of

    if subject is None:
        return ()
    try:
        return labels_of(subject.spec, [row for row in rows if row.kind == "sft"], ws.root)
    except UserError:  # fewer than two answers among these
        return ("…",)


def _plain(turn: Mapping[str, Any]) -> str:
    calls = turn.get("tool_calls")
    called = f" calls {json.dumps(calls, ensure_ascii=False)}" if calls else ""
    return f"{turn['role']}:{called} {turn['content']}".rstrip()
