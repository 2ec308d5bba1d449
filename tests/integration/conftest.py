"""What the tests with models share: new processes that needn't load torch and PEFT again."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from registry.models.base import BaseSpec
from tests.support.loaded import light, run_module, with_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.models.load import LoadedModel

# Those of our modules that load the libraries in a process of their own.
_MODULES = {
    "registry.intake.adapter_program": with_models,
    "registry.intake.template": with_models,
    "registry.intake.base_program": with_models,
    "registry.intake.rows": light,
    "registry.gguf.unpack": with_models,
    "registry.gguf.readback": with_models,
    "registry.models.parity": with_models,
}
RUN = subprocess.run


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Load the built-in base in fp32, once a worker; whoever uses an adapter takes it off again."""
    from registry.models.load import load_model

    return load_model("nano", BaseSpec(model="nano", dtype="fp32"), tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="module", autouse=True)
def loaded_processes() -> Iterator[None]:
    """Our own modules that load the libraries are forks of a process that has loaded them.

    The processes that users have are tested in test_incoming_places.py, test_merge.py and end to
    end.
    """

    def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        python, flag, module = [*command, "", "", ""][:3]
        if (python, flag) == (sys.executable, "-m") and module in _MODULES:
            found: subprocess.CompletedProcess[Any]
            found = run_module(_MODULES[module], command, **options)
            return found
        return RUN(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", run)
        yield


@pytest.fixture
def python_of_its_own(loaded_processes: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Undo `loaded_processes` for a test."""
    monkeypatch.setattr(subprocess, "run", RUN)
