"""The check that an lm-eval task can score an answer here, before any model is asked.

Import this module late: it loads lm_eval.
"""

from __future__ import annotations

import math
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import lm_eval.api.metrics  # noqa: F401 - fills the registry
from lm_eval.api.model import LM
from lm_eval.api.registry import METRIC_REGISTRY

from evals.tasks.task import run
from evals.tasks.task_files import FUNCTION
from registry.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task


class _Silent(LM):
    """A model that says nothing: an empty text, one likelihood for whatever is asked."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        # Not 0: a likelihood that is handed on as the score must be seen to be none.
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return [-1.0] * len(requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [""] * len(requests)


def check_metrics(task: str, config: Mapping[str, Any]) -> None:
    """Refuse a task that scores texts by a metric of Hugging Face's `evaluate`.

    Its code comes from the Hub, as it is there at that time, when lm-eval makes the task.

    Raises:
        UserError: a metric of the task's `config` is neither lm-eval's own nor a function.
    """
    generates = config.get("output_type", "generate_until") == "generate_until"
    if not generates or "process_results" in config or "class" in config:
        return
    for entry in config.get("metric_list") or ():
        name = str(entry.get("metric"))
        foreign = entry.get("hf_evaluate") is True or name not in METRIC_REGISTRY
        if foreign and not name.startswith(FUNCTION):
            raise SpecError(
                f"metric {name} of lm-eval task {task} is fetched from the Hugging Face Hub",
                expected="a metric of lm-eval's own, or a function beside the task's file",
                fix="put `metric: !function module.name` into a task file of your own, or leave "
                "the guard out",
            )


def check_scoring(task: Task, make: Callable[[Sequence[int]], Task]) -> None:
    """Score silence as the answer to one document, by the task's own filters and metrics.

    Args:
        task: as it was loaded.
        make: makes it anew over documents at some positions.

    Raises:
        UserError: anything that the task raises, or a score that is no number from 0 to 1.
    """
    try:
        ran = run(_Silent(), make, 1, log_samples=True)
    except Exception as error:  # a task is code: packages and data of it may be missing in any way
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        given = getattr(task, "_metric_fn_list", ()) if task.config.metric_list else ()
        by = f" by {', '.join(map(str, given))}" if given else ""
        raise SpecError(
            f"lm-eval task {task.config.task} can't score an answer{by}: {error_line(cause)}",
            expected="a metric that works on this machine, without a connection",
            fix=remedy(cause),
        ) from error
    score_of(task.config.task, ran.logged[0])


def score_of(task: str, logged: Mapping[str, Any]) -> float:
    """Return the score of a document as lm-eval logged it: acc_norm, else the first metric.

    Raises:
        UserError: it isn't a number from 0 to 1.
    """
    metrics = logged["metrics"]
    metric = "acc_norm" if "acc_norm" in metrics else next(iter(metrics), None)
    value: Any = logged[metric] if metric else None
    try:
        score = math.nan if isinstance(value, str) else float(value)  # numpy's numbers too
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise SpecError(
            f"metric {metric} of lm-eval task {task} is {shortened(value)} for a document",
            expected="a task whose first metric is a number from 0 to 1 for each document",
            fix="choose another task, or score its rows as a dataset of your own",
        )
    return score


def error_line(error: Exception) -> str:
    """Return the kind of an error and the first of its lines that has words."""
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if any(map(str.isalnum, line))), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def remedy(error: Exception) -> str:
    """Return what to do about a task that raised this."""
    if isinstance(error, ImportError):
        return "install it into gapmend's .venv, or leave the guard out"
    return "fetch what it needs once with a connection, or leave the guard out"
