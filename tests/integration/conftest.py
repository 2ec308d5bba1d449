"""What the tests with models share: new processes that needn't load torch and PEFT again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from registry.intake import adapter_places
from registry.merge import proof
from registry.models import parity
from registry.models.base import BaseSpec, locate
from tests.support import loaded


@pytest.fixture(scope="module")
def loaded_processes() -> Iterator[None]:
    """Adapters are placed and merged models loaded in forks of a process that has the libraries.

    The processes that users have are tested in test_incoming_places.py and test_merge.py.
    """

    def places(folder: Path, base: str, spec: BaseSpec, root: Path) -> dict[str, tuple[int, ...]]:
        model = locate(base, spec, root).path.resolve()
        return loaded.answer(_places, str(folder.resolve()), str(model), spec.trust_remote_code)

    def logits(folder: Path, tokens: Sequence[Sequence[int]]) -> parity.Logits:
        return loaded.answer(_logits, folder.resolve(), [list(row) for row in tokens])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter_places, "_places", places)
        patch.setattr(proof, "logits_in_new_process", logits)
        yield


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
