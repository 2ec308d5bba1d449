"""What all tests share: no network, no deadlines, and the folder of real data."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.loaded import light, with_models

# A deadline in milliseconds measures the machine's load, not the code.
settings.register_profile("project", deadline=None, print_blob=True, max_examples=30)
settings.register_profile("soak", deadline=None, print_blob=True, max_examples=500)
settings.load_profile("project")

# Before anything imports the libraries that read them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As bitsandbytes is imported it asks torch to compile four functions: 1.5 s a process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ["COLUMNS"] = "200"  # help texts and tables don't wrap where a test reads them
os.environ["NO_COLOR"] = "1"

# Of what tests allocate, a tenth of the time went to searches for garbage every 700 objects.
gc.set_threshold(10_000, 10, 10)

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of every later search for garbage; it takes 0.3 s each."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """End the processes that were forked from."""
    light.close()
    with_models.close()


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder with pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data (variable GAPMEND_DATA); the test is skipped where there is none."""
    folder = os.environ.get("GAPMEND_DATA")
    if not folder:
        pytest.skip("GAPMEND_DATA is not set: no real data here")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"GAPMEND_DATA={folder} is not a folder")
    return path
