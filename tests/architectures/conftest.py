"""What these tests share: one thread, and files that are read anew in this process."""

from __future__ import annotations

import gc
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.gguf import proof as gguf_proof
from registry.gguf import readback
from registry.merge import proof as merge_proof
from registry.models import parity
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.architectures.chain import make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # training collects garbage, and all of transformers is none
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    """What new processes do for the proofs, done here: they are tested in tests/integration."""

    def logits(folder: Path, tokens: Any) -> Any:
        with tempfile.TemporaryDirectory() as scratch:
            asked, answered = Path(scratch, "tokens.json"), Path(scratch, "logits.npz")
            asked.write_text(json.dumps([list(row) for row in tokens]), encoding="utf-8")
            parity._answer(folder, asked, answered)
            return np.load(answered)["logits"]

    def read(path: Path, tokens: Any, texts: Any) -> Any:
        with tempfile.TemporaryDirectory() as scratch:
            asked, answered = Path(scratch, "asked.json"), Path(scratch, "answers.npz")
            asked.write_text(json.dumps({"tokens": tokens, "texts": texts}), encoding="utf-8")
            readback._answer(path, asked, answered)
            found = np.load(answered)
            return found["logits"], json.loads(str(found["ids"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_proof, "logits_in_new_process", logits)
        patch.setattr(gguf_proof, "_read_elsewhere", read)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedModel]:
    """Loads a tiny model of an architecture, once a module; with `changes` of its config, anew."""
    known: dict[str, LoadedModel] = {}

    def load(kind: str, **changes: Any) -> LoadedModel:
        if changes or kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            make(kind, folder, **changes)
            given = BaseSpec(model=str(folder), dtype="fp32")
            found = load_model("tiny", given, folder)
            if changes:
                return found
            known[kind] = found
        return known[kind]

    return load
