"""An open GGUF file: tokens in, logits out, by llama.cpp's C functions.

`llama_cpp.Llama` keeps the logits of every token, which for a large vocabulary is gigabytes, and
can't be told how weights are laid out.
"""

from __future__ import annotations

import os
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
        self._lib = lib = quiet_llama_cpp()
        how = lib.llama_model_default_params()
        # Weights laid out anew for this CPU: by AMX that ends processes where a virtual machine
        # shows it and can't do it, and elsewhere it rounds otherwise from machine to machine.
        how.use_extra_bufts = False
        self._model = lib.llama_model_load_from_file(os.fsencode(file), how)
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = room, _BATCH, _BATCH
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        settings.swa_full = True  # windows keep what an earlier request began with
        self._context = self._model and lib.llama_init_from_model(self._model, settings)
        if not self._context:
            raise ModelError(f"llama.cpp can't load {file.name}; it says no more than that")
        self._batch = lib.llama_batch_init(_BATCH, 0, 1)
        self._read: list[int] = []
        self._words = lib.llama_model_get_vocab(self._model)
        self.room = room
        self.vocabulary = int(lib.llama_vocab_n_tokens(self._words))

    def close(self) -> None:
        """Give back the memory."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def tokens(self, text: str, *, first: bool) -> list[int]:
        """Return the ids of a text; with `first`, what the file puts in front of one too."""
        said = text.encode()
        room = len(said) + 8  # a token is a byte at least, and few are put in front
        found = (self._lib.llama_token * room)()
        count = self._lib.llama_tokenize(
            self._words, said, len(said), found, room, first, True  # noqa: FBT003 - theirs
        )  # fmt: skip
        if count < 0:
            message = f"llama.cpp makes {-count} tokens of {len(said)} bytes"
            raise ModelError(message)
        return list(found[:count])

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
        memory = self._lib.llama_get_memory(self._context)
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
        said = self._lib.llama_decode(self._context, batch)
        if said != 0:
            message = f"llama.cpp can't read {len(tokens)} tokens: it ended with {said}"
            raise ModelError(message)
        size = (self.vocabulary,)
        return [
            np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, at), size).copy()
            for at in range(len(tokens))
            if start + at >= wanted
        ]
