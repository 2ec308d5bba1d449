"""SmolLM2 for the tests on a real model: one workspace, in which it is unpacked once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from registry.models.base import BaseSpec
from registry.models.smollm2 import smollm2_file

if TYPE_CHECKING:
    from pathlib import Path

    from registry.models.load import LoadedModel

SMOL = BaseSpec(model="smollm2", dtype="fp32")


@pytest.fixture(scope="session")
def smol_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace's folder; all tests that need the model are skipped where it isn't."""
    if not smollm2_file().is_file():
        pytest.skip("SmolLM2 isn't here, and pip can't fetch it: ./just smollm2 says why")
    return tmp_path_factory.mktemp("smol")


@pytest.fixture(scope="session")
def smol(smol_root: Path) -> LoadedModel:
    """The model, loaded once; whoever uses an adapter takes it off again."""
    from registry.models.load import load_model

    return load_model("smol", SMOL, smol_root)


@pytest.fixture(scope="session")
def smol_folder(smol_root: Path) -> Path:
    """Where it is unpacked."""
    from registry.models.base import locate

    return locate("smol", SMOL, smol_root).path


@pytest.fixture(scope="session")
def trained(smol: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a short training left."""
    from tests.real.training_program import train

    return train(smol, tmp_path_factory.mktemp("trained"))
