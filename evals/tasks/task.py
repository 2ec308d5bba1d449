"""A capability as an lm-eval task, made from items and scored through lm-eval's evaluator.

The prompts are rendered before, by the base's chat template, so that lm-eval neither downloads,
samples, caches nor formats anything. Import this module late: it loads lm_eval.

A choice is the label whose text is most likely as the whole answer: each label is followed by
what ends a turn in the base's template, so that `card` does not win where `card payment` is meant,
and its log-probability is the sum over its tokens, not divided by their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig
from lm_eval.filters import build_filter_ensemble

from evals.engine.limits import NotFiniteError, OverlongError
from evals.tasks.scorers import final_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lm_eval.api.model import LM

    from evals.tasks.capability import Item
    from evals.tasks.prompts import Question
    from evals.tasks.scorers import Scorer
    from registry.chat.form import AnswerForm


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the model answered, and its score; `loglikelihoods` in the order of the labels."""

    answer: str
    score: float
    loglikelihoods: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class AskedForm:
    """How a task asks.

    With a `scorer` the model generates, and the scorer is given the answer; `reasoned`: the last
    thing said, after reasoning. Else with `labels`, or those of the item, the likelihood of each is
    asked for, and without them that of the expected text. `form` is what the base's template writes
    around an answer, and `specials` its special tokens.
    """

    labels: tuple[str, ...]
    form: AnswerForm
    specials: tuple[str, ...] = ()
    scorer: Scorer | None = None
    reasoned: bool = False
    max_new_tokens: int = 0

    def generation(self) -> dict[str, Any]:
        """Return how an answer is generated: greedily, up to what ends a turn."""
        wanted = {
            "until": [self.form.end] if self.form.end else ["\n\n"],
            "max_gen_toks": self.max_new_tokens,
            "do_sample": False,
        }
        if self.form.needs_specials(self.specials):
            wanted["skip_special_tokens"] = False
        return wanted

    def answer_in(self, written: str) -> str:
        """Return the answer in what the model wrote, without its thought and special tokens."""
        answer = self.form.answer_in(written)
        for special in self.specials if self.form.needs_specials(self.specials) else ():
            answer = answer.replace(special, "")
        return answer


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task that was run: over the documents at `positions`, in their order.

    `too_long` has the positions that were left out, with the tokens that they need; `task` is None
    if that is all of them.
    """

    task: Task | None
    positions: tuple[int, ...]
    too_long: Mapping[int, int]
    logged: tuple[dict[str, Any], ...]


class CapabilityTask(Task):
    """lm-eval's view of one capability, one prompt and a list of questions.

    After `run`, `outcomes[i]` is the outcome of question i.
    """

    VERSION = 1

    def __init__(
        self, name: str, questions: Sequence[Question], contexts: Sequence[str], asking: AskedForm
    ) -> None:
        """Take the questions with their rendered contexts, in one order."""
        # Not super().__init__: it downloads, and puts a given config into the field `task`.
        self._questions = questions
        self._contexts = contexts
        self._asking = asking
        self.outcomes: dict[int, Outcome] = {}
        self.OUTPUT_TYPE = "loglikelihood" if asking.scorer is None else "generate_until"
        self._config = TaskConfig(
            task=name,
            output_type=self.OUTPUT_TYPE,
            generation_kwargs=None if asking.scorer is None else asking.generation(),
        )
        self._instances: list[Instance] = []
        self._filters = [build_filter_ensemble("none", [("take_first", None)])]

    def has_training_docs(self) -> bool:
        """Return False: examples are part of the rendered contexts."""
        return False

    def has_validation_docs(self) -> bool:
        """Return False: the questions are what lm-eval calls test documents."""
        return False

    def has_test_docs(self) -> bool:
        """Return True, see `test_docs`."""
        return True

    def test_docs(self) -> list[dict[str, int]]:
        """Return one document a question: its position and its row."""
        return [
            {"position": position, "row_uid": question.item.uid}
            for position, question in enumerate(self._questions)
        ]

    def doc_to_text(self, doc: Mapping[str, int]) -> str:
        """Return the rendered context."""
        return self._contexts[doc["position"]]

    def doc_to_target(self, doc: Mapping[str, int]) -> str:
        """Return the expected answer."""
        return self._questions[doc["position"]].item.expected

    def build_all_requests(self, *, rank: int = 0, world_size: int = 1, **_options: object) -> None:
        """Make the requests, without lm-eval's progress bar, request cache and formatting."""
        self._instances = [
            instance
            for doc_id, doc in self.doc_iterator(rank=rank, world_size=world_size)
            for instance in self.construct_requests(
                doc, self.doc_to_text(doc), metadata=(self.config.task, doc_id, 1)
            )
        ]

    def construct_requests(
        self, doc: Mapping[str, int], ctx: str, *, metadata: tuple[str, int, int], **_: object
    ) -> list[Instance]:
        """Return the requests of one question: one a label, or one."""
        asking, item = self._asking, self._questions[doc["position"]].item
        if asking.scorer is not None:
            return [Instance("generate_until", doc, (ctx, asking.generation()), 0, metadata)]
        if item.text is not None:
            return [Instance("loglikelihood_rolling", doc, (item.text,), 0, metadata)]
        answers = item.labels or asking.labels or (item.expected,)
        return [
            Instance("loglikelihood", doc, (ctx, asking.form.written(answer)), index, metadata)
            for index, answer in enumerate(answers)
        ]

    def process_results(self, doc: Mapping[str, int], results: Sequence[Any]) -> dict[str, float]:
        """Score one question from the model's responses, and keep its outcome."""
        position = doc["position"]
        outcome = self._outcome(self._questions[position].item, results)
        self.outcomes[position] = outcome
        return {"score": outcome.score}

    def aggregation(self) -> dict[str, Any]:
        """Return how lm-eval sums up: by the mean."""
        return {"score": lambda scores: math.fsum(scores) / len(scores)}

    def higher_is_better(self) -> dict[str, bool]:
        """Return that a higher score is better."""
        return {"score": True}

    def _outcome(self, item: Item, results: Sequence[Any]) -> Outcome:
        asking = self._asking
        if asking.scorer is not None:
            answer = asking.answer_in(str(results[0]))
            said = final_answer(answer) if asking.reasoned else answer
            return Outcome(answer, asking.scorer(said, item), None)
        likelihoods = tuple(_likelihood(result) for result in results)
        if labels := item.labels or asking.labels:
            answer = labels[likelihoods.index(max(likelihoods))]
            return Outcome(answer, float(answer == item.expected), likelihoods)
        written = len((item.text if item.text is not None else item.expected).encode())
        return Outcome("", math.exp(min(0.0, likelihoods[0]) / max(1, written)), likelihoods)


def run(
    engine: LM,
    make: Callable[[Sequence[int]], Task],
    count: int,
    *,
    log_samples: bool = False,
    chat_template: bool = False,
) -> TaskRun:
    """Run a task through lm-eval's evaluator, without the documents that are too long.

    Without bootstrap (the intervals are ours) and without any of lm-eval's caches.

    Args:
        engine: the model.
        make: makes the task over the documents at some positions of `count`.
        count: how many documents there are.
        log_samples: keep lm-eval's samples; a `CapabilityTask` has its outcomes itself.
        chat_template: let lm-eval put the task's prompts into the model's chat template.

    Raises:
        NotFiniteError: of a document, by its position among `count`.
    """
    from lm_eval.evaluator import evaluate

    positions, too_long = list(range(count)), dict[int, int]()
    while positions:
        task = make(positions)
        name = task.config.task
        try:
            results = evaluate(
                lm=engine,
                task_dict={"tasks": {name: task}, "groups": {}},
                bootstrap_iters=0,
                log_samples=log_samples,
                apply_chat_template=chat_template,
                fewshot_as_multiturn=chat_template,
            )
        except OverlongError as error:
            too_long |= _too_long(task, positions, error)
            positions = [position for position in positions if position not in too_long]
        except NotFiniteError as error:
            document = task.instances[error.request].doc_id
            raise NotFiniteError(positions[document], error.layer) from None
        else:
            logged = results["samples"][name] if log_samples else []
            return TaskRun(task, tuple(positions), too_long, tuple(logged))
    return TaskRun(None, (), too_long, ())


def _too_long(task: Task, positions: Sequence[int], error: OverlongError) -> dict[int, int]:
    """Return the positions of documents that don't fit, with the tokens that they need."""
    asked = [one for one in task.instances if one.request_type != "loglikelihood_rolling"]
    needed: dict[int, int] = {}
    for request in error.requests:
        position = positions[asked[request.index].doc_id]
        needed[position] = max(needed.get(position, 0), request.tokens)
    return needed


def _likelihood(result: Any) -> float:
    return float(result[0] if isinstance(result, tuple | list) else result)
