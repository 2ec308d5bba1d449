"""The base of every engine: a journal of answers, and prompts by the base model's template.

Light to import: the models are in evals/engine/packed.py and evals/engine/vllm.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from evals.engine.journal import keys_of
from evals.engine.limits import NotFiniteError, Overlong, OverlongError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evals.engine.journal import Journal
    from registry.chat.chat import Chat

    Done = Callable[[int, Any], None]

REPORT_S = 0.05


class AnsweringMixin:
    """Before lm-eval's class among the bases of an engine: what both engines are.

    Attributes:
        progress: called with (done, total) requests of the running call.
        journal: where answers are kept as they come, and found again; None: nowhere.
    """

    progress: Callable[[int, int], None] | None
    journal: Journal | None
    chat: Chat

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token.

        Raises:
            UserError: the tokenizer has none, so that no answer could end.
        """
        return self.chat.end_of_text

    @property
    def tokenizer_name(self) -> str:
        """A name for caches: which tokenizer, without a path."""
        return self.chat.name

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002 - lm-eval's interface
    ) -> str:
        """Messages as text; without a generation prompt the last message is left open."""
        if add_generation_prompt:
            return self.chat.render(chat_history, add_generation_prompt=True)
        return self.chat.left_open(chat_history)

    def _answered(
        self, kind: str, asked: Sequence[Any], answer: Callable[[list[int], Done], None]
    ) -> list[Any]:
        """Answers to requests: those in the journal from there, the rest by the model.

        Args:
            kind: of the requests.
            asked: the arguments of each.
            answer: is given the indices of those to be asked, and whom to tell each answer.
        """
        journal = self.journal
        keys = keys_of(kind, asked) if journal else []
        answers = [journal.get(key) for key in keys] if journal else [None] * len(asked)
        still = [index for index, known in enumerate(answers) if known is None]
        report = self._reporter(len(asked))
        report(len(asked) - len(still))

        def done(place: int, found: Any) -> None:
            answers[still[place]] = found
            if journal:
                journal.add(keys[still[place]], found)
            report(1)

        try:
            if still:
                answer(still, done)
        except OverlongError as error:
            found = [Overlong(still[one.index], one.tokens) for one in error.requests]
            raise OverlongError(found, error.context) from None
        except NotFiniteError as error:
            raise NotFiniteError(still[error.request], error.layer) from None
        finally:
            if journal:
                journal.flush()
        return [tuple(one) if isinstance(one, list) else one for one in answers]

    def _reporter(self, total: int) -> Callable[[int], None]:
        done, due = 0, 0.0

        def report(count: int) -> None:
            nonlocal done, due
            done += count
            if self.progress is not None and (done == total or time.monotonic() >= due):
                self.progress(done, total)
                due = time.monotonic() + REPORT_S

        return report
