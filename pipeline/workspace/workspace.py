"""A workspace: a folder with `gapmend.yaml`, the data it names, and `.gapmend/` (store, catalog).

`OpenWorkspace.open` is where every verb begins. Bases are loaded once a process, on first use.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from pipeline.workspace.store import WorkspaceStore, find
from registry.catalog.catalog import Catalog
from registry.errors import SPEC_FILE
from registry.store.filenames import STATE
from registry.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from evals.engine.backend import Backend
    from pipeline.spec.spec import Spec
    from registry.chat.chat import Chat
    from registry.models.load import BaseIdentity, LoadedModel


class Models:
    """The bases of one process: identified without loading, loaded on first use, then shared."""

    def __init__(self, spec: Spec, root: Path) -> None:
        """Remember what the spec names; nothing is read yet."""
        self._spec = spec
        self._root = root
        self._identities: dict[str, BaseIdentity] = {}
        self._loaded: dict[str, LoadedModel] = {}
        self._engines: dict[str, Backend] = {}
        self._read = 0  # by engines that are closed

    def identity(self, base: str) -> BaseIdentity:
        """Return what identifies the base `base` of the spec, without loading it.

        Raises:
            UserError: it isn't there, or isn't one that can be used.
        """
        from registry.intake.base import check_base
        from registry.models.load import identify

        if base not in self._identities:
            spec = self._spec.bases[base]
            found = identify(base, spec, self._root)
            check_base(base, spec, self._root, found)
            self._identities[base] = found
        return self._identities[base]

    def get(self, base: str) -> LoadedModel:
        """Return the loaded base; the first call loads it and frees whatever else was."""
        from registry.models.load import load_model

        if base not in self._loaded:
            self.close()
            self._loaded[base] = load_model(base, self._spec.bases[base], self._root)
        return self._loaded[base]

    def chat(self, base: str) -> Chat:
        """Return the base's tokenizer and template, from what is loaded or without loading it."""
        from registry.models.tokenizer import load_chat

        if base in self._loaded:
            return self._loaded[base].chat
        if base in self._engines:
            return self._engines[base].chat
        return load_chat(base, self._spec.bases[base], self._root)

    def backend(self, base: str) -> str | None:
        """Return what stands for the backend in the keys of scores; None for gapmend's own.

        Raises:
            UserError: the spec's backend isn't installed, or doesn't take this base.
        """
        from evals.engine.backend import backend_of

        name = self._spec.evals.backend
        return backend_of(name, self._spec.bases[base], self.identity(base))

    def engine(self, base: str, progress: Callable[[int, int], None] | None = None) -> Backend:
        """Return the engine that scores with the base; `progress(done, total)` is told.

        Raises:
            UserError: as `backend`, or vLLM can't load the base.
        """
        if base not in self._engines:
            self._engines[base] = self._open(base)
        engine = self._engines[base]
        engine.progress = progress
        return engine

    def _open(self, base: str) -> Backend:
        if self.backend(base) is None:
            from evals.engine.packed import PackedLM

            return PackedLM(self.get(base))
        from evals.engine.backend import open_vllm

        self.close()  # of one GPU's memory, vLLM takes its share at once
        return open_vllm(base, self._spec.bases[base], self._root, rank=self._spec.train.rank)

    @property
    def tokens_read(self) -> int:
        """How many tokens went through the bases to be scored, in this process."""
        return self._read + sum(one.tokens_processed or 0 for one in self._engines.values())

    def close(self) -> None:
        """Let go of all that is loaded; on a GPU its memory is there for the next."""
        if not (self._loaded or self._engines):
            return
        import gc

        import torch

        self._read = self.tokens_read
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._loaded.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class OpenWorkspace(WorkspaceStore):
    """What the stages are given: a validated spec, the store and catalog, and the bases."""

    spec: Spec
    models: Models = field(repr=False)

    def with_spec(self, spec: Spec) -> Self:
        """Return the same workspace by another spec, which is written nowhere."""
        return replace(self, spec=spec, models=Models(spec, self.root))

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open the workspace in `root`.

        Raises:
            UserError: `root` has no `gapmend.yaml`, or the spec in it is not valid.
        """
        from pipeline.spec.spec import load_spec

        root = find(root)
        spec = load_spec(root / SPEC_FILE)
        state = root / STATE
        return cls(root, Store(state), Catalog(state), spec, Models(spec, root))
