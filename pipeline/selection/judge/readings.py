"""Readings: what the base makes of rows and items, kept between rounds, with what reading cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.store.hashing import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from evals.scoring.own_answers import OwnAnswer
    from evals.tasks.capability import Item
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from registry.datasets.versions.row import Row

MOST_ANSWER_TOKENS = 256
"""The longest answer of its own that a base is let write; a longer one isn't replayed."""

_FORMAT = 1

TOGETHER = 4
"""Answers that are drawn at once to a row for a gap: an easy one takes no more."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text in two parts: what is asked, which may be empty, and the answer to it."""

    asked: str
    answer: str

    @property
    def text(self) -> str:
        """All of it, the answer on a line of its own."""
        return "\n".join(part for part in (self.asked, self.answer) if part)


class Readings:
    """Asks a base about texts. `tokens` counts what it has read and written, by what for.

    They count whether it did so now or in an earlier round: that is what deciding takes.
    """

    def __init__(self, ws: Resolved, ui: Ui, base: str) -> None:
        """Remember whom to ask; nothing is loaded until something has to be."""
        self._ws = ws
        self._ui = ui
        self._base = base
        self.tokens: Counter[str] = Counter()

    def losses(self, passages: Sequence[Passage], label: str) -> tuple[float, ...]:
        """Return how unlikely the base finds the answers of passages: the mean loss of a token."""
        from evals.engine.limits import ENGINE_VERSION
        from evals.scoring.answer_losses import answer_losses

        models = self._ws.models
        identity = models.identity(self._base)
        named = [_FORMAT, ENGINE_VERSION, models.backend(self._base), identity.digest]
        path = self._cache("losses") / f"{digest(named)}.jsonl"
        pairs = [(one.asked, one.answer) for one in passages]
        with self._ui.progress(f"{label} · losses", total=len(pairs)) as bar:
            found = answer_losses(models.engine(self._base, bar.update), pairs, path)
        self.tokens["losses"] += found.tokens
        return found.losses

    def own_answers(
        self, questions: Sequence[Sequence[dict[str, object]]], label: str
    ) -> list[OwnAnswer | None]:
        """Return what the base says to each; None where it can't be asked."""
        from evals.engine.limits import ENGINE_VERSION
        from evals.scoring.own_answers import own_answers

        models = self._ws.models
        identity = models.identity(self._base)
        named = [_FORMAT, ENGINE_VERSION, models.backend(self._base), identity.digest]
        path = self._cache("answers") / f"{digest(named)}.jsonl"
        most = self._most()
        with self._ui.progress(f"{label} · own answers", total=len(questions)) as bar:
            engine = models.engine(self._base, bar.update)
            found = own_answers(engine, questions, path, max_new_tokens=most)
        self.tokens["own answers"] += sum(one.tokens for one in found if one is not None)
        return found

    def drawn(
        self, question: Sequence[dict[str, object]], count: int, label: str
    ) -> list[OwnAnswer]:
        """Return `count` texts that the base draws from its own distribution after a question.

        Raises:
            TurnRefusedError: its template doesn't take the question.
        """
        from evals.scoring.sampled import sampled

        loaded = self._ws.models.get(self._base)
        path = (
            self._cache("answers") / f"{digest([_FORMAT, 'drawn', loaded.identity.digest])}.jsonl"
        )
        with self._ui.progress(f"{label} · drawn", total=count) as bar:
            found = sampled(
                loaded, question, count, path, max_new_tokens=self._most(), progress=bar.update
            )
        self.tokens["own answers"] += sum(one.tokens for one in found)
        return found

    def first_right(
        self,
        contexts: Sequence[str],
        count: int,
        label: str,
        *,
        max_new_tokens: int,
        right: Callable[[int, OwnAnswer], bool],
    ) -> list[OwnAnswer | None]:
        """Return the first answer to each context that is right, of `count` that the base draws.

        Args:
            contexts: by the base's template.
            count: drawn at most; none after the right one's batch.
            label: for the progress.
            max_new_tokens: the longest answer.
            right: whether the answer at a place is.
        """
        from evals.scoring.sampled import Drawer

        loaded = self._ws.models.get(self._base)
        path = (
            self._cache("answers") / f"{digest([_FORMAT, 'drawn', loaded.identity.digest])}.jsonl"
        )
        drawer = Drawer(loaded, path, max_new_tokens=max_new_tokens)
        found: list[OwnAnswer | None] = []
        with self._ui.progress(f"{label} · own answers drawn", total=len(contexts)) as bar:
            for place, context in enumerate(contexts):
                found.append(None)
                seed = int(digest(context)[:4], 16)  # not the same chance for every row
                for one in drawer.draws(context, count, seed=seed, together=TOGETHER):
                    self.tokens["own answers for gaps"] += one.tokens
                    if right(place, one):
                        found[-1] = one
                        break
                bar.update(place + 1, len(contexts))
        return found

    def _most(self) -> int:
        return most_answer_tokens(self._ws.models.identity(self._base).context)

    def _cache(self, name: str) -> Path:
        return self._ws.state / "cache" / name


def most_answer_tokens(context: int) -> int:
    """Return the longest answer of its own that a base with such a context is let write."""
    return max(1, min(MOST_ANSWER_TOKENS, context // 2))


def passage_of(row: Row) -> Passage:
    """Return a row as what it asks and its answer; all of it together is `row.text`."""
    *asked, answer = (*row.messages, *(row.chosen or ()))
    return Passage("\n".join(turn.content for turn in asked if turn.content), answer.content)


def passage_of_item(item: Item) -> Passage:
    """Return an item as what it asks and the answer that is expected."""
    asked = [*(turn.content for turn in item.history), item.fields["input"]]
    return Passage("\n".join(asked), item.expected)
