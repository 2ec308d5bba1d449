"""What the tests with models share: new processes that needn't load torch and PEFT again."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from registry.intake import adapter_places
from registry.merge import proof
from registry.models import parity
from registry.models.base import BaseSpec, locate


@pytest.fixture(scope="module")
def loaded_processes() -> Iterator[None]:
    """Adapters are placed and merged models loaded in forks of a process that has the libraries.

    It has done nothing else, and a Python of its own takes some seconds for each. The processes
    that users have are tested in test_incoming_places.py and test_merge*.py.
    """
    context: Any = multiprocessing.get_context("forkserver")
    llama = "transformers.models.llama.modeling_llama"
    here = ["registry.intake.adapter_places", "registry.models.parity"]
    context.set_forkserver_preload(["peft", llama, *here])

    def call(function: Callable[..., Any], *given: object) -> Any:
        answers, ours = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(ours, function, given))
        process.start()
        ours.close()
        answer = answers.recv()  # EOFError where the process failed; it has said why
        process.join()
        return answer

    def places(folder: Path, base: str, spec: BaseSpec, root: Path) -> dict[str, tuple[int, ...]]:
        model = locate(base, spec, root).path.resolve()
        return call(_places, str(folder.resolve()), str(model), spec.trust_remote_code)

    def logits(folder: Path, tokens: Sequence[Sequence[int]]) -> parity.Logits:
        return call(_logits, folder.resolve(), [list(row) for row in tokens])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter_places, "_places", places)
        patch.setattr(proof, "logits_in_new_process", logits)
        yield


def _answer(connection: Any, function: Callable[..., Any], given: tuple[object, ...]) -> None:
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        connection.send(function(*given))


def _places(folder: str, model: str, trusted: bool) -> dict[str, tuple[int, ...]]:
    adapter_places._limit(60)
    shapes = adapter_places._shapes(folder, model, trust_remote_code=trusted)
    return {name: tuple(shape) for name, shape in shapes.items()}


def _logits(folder: Path, tokens: list[list[int]]) -> parity.Logits:
    import numpy as np

    asked, answered = Path("tokens.json"), Path("logits.npz")
    asked.write_text(json.dumps(tokens), encoding="utf-8")
    parity._answer(folder, asked, answered)
    with np.load(answered) as found:
        return np.asarray(found["logits"])
