"""An open GGUF file: tokens in, logits out, by llama.cpp's C functions.

`llama_cpp.Llama` opens it and reads text; its own methods keep the logits of every token, which
for a large vocabulary is gigabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from registry.errors import ModelError
from registry.gguf.quantise import quiet_llama_cpp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Row = NDArray[np.float32]

_BATCH = 512  # tokens read at once


class GgufReader:
    """Reads tokens; what two calls begin with is read once.

    Args:
        file: the GGUF file.
        room: tokens that there is room for.
    """

    def __init__(self, file: Path, room: int) -> None:
        """Open it.

        Raises:
            UserError: llama.cpp can't.
        """
        self._lib = quiet_llama_cpp()
        threads = torch.get_num_threads()
        try:
            self._llama = self._lib.Llama(
                str(file),
                n_ctx=room,
                n_batch=min(_BATCH, room),
                n_threads=threads,
                n_threads_batch=threads,
                swa_full=True,  # windows keep what an earlier request began with
                verbose=False,
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"llama.cpp can't load {file.name}: {error}") from error
        self._batch = self._lib.llama_batch_init(_BATCH, 0, 1)
        self._read: list[int] = []
        self.room = room
        self.vocabulary = int(self._llama.n_vocab())

    def close(self) -> None:
        """Give back the memory."""
        self._lib.llama_batch_free(self._batch)
        self._llama.close()

    def tokens(self, text: str, *, first: bool) -> list[int]:
        """Return the ids of a text; with `first`, what the file puts in front of one too."""
        return [int(one) for one in self._llama.tokenize(text.encode(), first, True)]  # noqa: FBT003 - theirs

    def read(self, tokens: Sequence[int], rows: int) -> Row:
        """Return the logits behind each of the last `rows` tokens.

        Raises:
            UserError: llama.cpp fails.
        """
        wanted = len(tokens) - rows
        same = 0
        for one, two in zip(self._read, tokens[:wanted], strict=False):
            if one != two:
                break
            same += 1
        memory = self._lib.llama_get_memory(self._llama.ctx)
        self._lib.llama_memory_seq_rm(memory, -1, same, -1)
        found = []
        for start in range(same, len(tokens), _BATCH):
            found += self._decode(tokens[start : start + _BATCH], start, wanted)
        self._read = list(tokens)
        return np.stack(found)

    def _decode(self, tokens: Sequence[int], start: int, wanted: int) -> list[Row]:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, start + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = start + at >= wanted
        said = self._lib.llama_decode(self._llama.ctx, batch)
        if said != 0:
            message = f"llama.cpp can't read {len(tokens)} tokens: it ended with {said}"
            raise ModelError(message)
        size = (self.vocabulary,)
        return [
            np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._llama.ctx, at), size).copy()
            for at in range(len(tokens))
            if start + at >= wanted
        ]
