"""The silencer of libraries: what they say to each other is kept from the user."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Around imports of PEFT and the Trainer, and calls that go from one of them to the other."""
    # Imported by both, it tells what the machine lacks.
    bitsandbytes = logging.getLogger("bitsandbytes")
    level = bitsandbytes.level
    bitsandbytes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="bitsandbytes")
            # PEFT asks for what transformers calls otherwise by now.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            # PEFT puts the setting right itself for GPT-2's layers, and says so.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
            # A tied head or embedding is merged into weights of its own, and the report says so.
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
            # The adapter names its base, and there is no such folder to read a config from.
            warnings.filterwarnings("ignore", message=".*[Cc]ould not find a config file.*")
            yield
    finally:
        bitsandbytes.setLevel(level)
