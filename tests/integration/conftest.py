"""What the tests with models share: new processes that needn't load torch and PEFT again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def loaded_processes() -> Iterator[None]:
    """Adapters are placed, merged models and GGUF files loaded in forks, not in Pythons anew.

    The processes that users have are tested in test_incoming_places.py, test_merge.py and end to
    end.
    """
    with loaded.forked_modules():
        yield
