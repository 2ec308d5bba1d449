"""The models of a workspace by the names that requests give; a base is in memory once.

Looked up anew for each request, so that an adapter that was trained, or an alias that was moved,
a moment ago is the one that answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pipeline.serving.app import ModelName
from pipeline.workspace.store import refuse_removed
from registry.chat.tokens import TextTokens
from registry.errors import StoreRequestError, UserError
from registry.models.adapters import is_tuned
from registry.models.base import MERGED
from registry.store.kinds import WeightsMeta

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evals.engine.live.ask import Ask, Stream, Told
    from evals.engine.live.worker import Live
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.base import BaseSpec
    from registry.store.manifest import Manifest, Meta

IN_MEMORY = 2
"""Bases and merged models that are kept loaded, unless more of them are answering."""

SHOWN = 12
_DIGITS = re.compile(r"[0-9a-f]{4,64}")
_THINGS = """
SELECT id, manifest->>'$.meta.base', manifest->>'$.identity.base', epoch(created_at)::BIGINT
FROM catalog.objects
WHERE kind IN ('adapter', 'model') AND id NOT IN (SELECT adapter_id FROM catalog.removals)
ORDER BY created_at DESC, id DESC
"""
_ALIASES = """
SELECT name, arg_max(target, seq), epoch(arg_max(moved_at, seq))::BIGINT
FROM catalog.alias_moves GROUP BY name ORDER BY name
"""


@dataclass(frozen=True)
class _Wanted:
    """Whose weights answer: a base as the spec has it, or a merged model as its base is."""

    key: str
    spec: BaseSpec
    adapter: Path | None = None


class Loaded:
    """A model in memory and how it is asked.

    Args:
        live: it.
    """

    def __init__(self, live: Live) -> None:
        """See the class."""
        self.live = live
        self.chat = live.loaded.chat
        self._tokens = TextTokens(self.chat.tokenizer)
        self._streams: WeakSet[Stream] = WeakSet()

    @property
    def busy(self) -> bool:
        """Whether it writes an answer."""
        return any(stream.finish is None for stream in self._streams)

    @cached_property
    def texts(self) -> Sequence[str]:
        """The text of each token."""
        tokenizer = self.chat.tokenizer
        ids = [[token] for token in range(len(tokenizer))]
        return tuple(tokenizer.batch_decode(ids, skip_special_tokens=False))

    def encoded(self, text: str) -> list[int]:
        """Return the tokens of a text; of an empty one that by which a text begins."""
        tokens = self._tokens.whole(text)
        if tokens:
            return tokens
        first = self.chat.tokenizer.bos_token_id
        return [self.chat.end_of_text if first is None else int(str(first))]

    def submit(self, ask: Ask, told: Told) -> Stream:
        """Begin an answer."""
        stream = self.live.submit(ask, told)
        self._streams.add(stream)
        return stream


@dataclass(frozen=True)
class WorkspaceVoice:
    """Who answers by one name; see `app.Voice`."""

    loaded: Loaded
    adapter: Path | None
    scale: float = 1.0

    @property
    def context(self) -> int:
        """The longest prompt and answer, in tokens."""
        return self.loaded.live.loaded.context

    def asked(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
    ) -> list[int]:
        """Return the tokens by which it is asked in a conversation, as it was trained and scored.

        Raises:
            UserError: the template refuses it, or leaves something out.
        """
        return self.loaded.encoded(self.loaded.chat.context(messages, tools or None))

    def encoded(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self.loaded.encoded(text)

    def decoded(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return str(self.loaded.chat.tokenizer.decode(list(tokens)))

    def texts(self) -> Sequence[str]:
        """Return the text of each token."""
        return self.loaded.texts

    def submit(self, ask: Ask, told: Told) -> Stream:
        """Begin an answer."""
        return self.loaded.submit(ask, told)


@dataclass
class WorkspaceDesk:
    """The models of a workspace; see `app.Desk`.

    Attributes:
        ws: the workspace.
        only: the names that are served; empty: all.
    """

    ws: OpenWorkspace
    only: tuple[str, ...] = ()
    _loaded: dict[str, Loaded] = field(default_factory=dict)

    def names(self) -> list[ModelName]:
        """Return the bases, aliases, adapters and merged models, the newest first of each."""
        with self.ws.catalog.reading() as connection:
            things = connection.execute(_THINGS).fetchall()
            aliases = connection.execute(_ALIASES).fetchall()
        roots = {key: base for key, base, digest, _ in things if self._is(base, digest)}
        named = [ModelName(base, 0, base) for base in self.ws.spec.bases]
        named += [
            ModelName(name, since, roots[target], target[:SHOWN])
            for name, target, since in aliases
            if target in roots and name not in self.ws.spec.bases
        ]
        named += [
            ModelName(key[:SHOWN], since, roots[key]) for key, _, _, since in things if key in roots
        ]
        if not self.only:
            return named
        found = {name.id: name for name in named}
        return [found.get(name) or ModelName(name, 0, self._wanted(name).key) for name in self.only]

    def find(self, name: str) -> WorkspaceVoice | None:
        """Return who answers by a name, loaded; None: nobody.

        Raises:
            UserError: it is there, and can't be loaded.
        """
        if self.only and name not in self.only:
            return None
        try:
            wanted = self._wanted(name)
        except StoreRequestError:
            return None
        return WorkspaceVoice(self._open(wanted), wanted.adapter)

    def check(self) -> None:
        """Check that each name that is to be served alone is there.

        Raises:
            UserError: one isn't.
        """
        for name in self.only:
            self._wanted(name)

    def adapters(self, base: str) -> dict[str, Path]:
        """Return the folders of the adapters of a base by each name that they have."""
        found = {}
        for name in self.names():
            if name.root != base or name.id in self.ws.spec.bases:
                continue
            wanted = self._wanted(name.id)
            if wanted.adapter is not None:
                found[name.id] = wanted.adapter
        return found

    def close(self) -> None:
        """End all answers, and let go of the models."""
        for loaded in self._loaded.values():
            loaded.live.close()
        self._loaded.clear()

    def _wanted(self, name: str) -> _Wanted:
        """Return whose weights answer by a name.

        Raises:
            StoreRequestError: nothing has this name, or nothing that answers.
        """
        bases = self.ws.spec.bases
        if name in bases:
            return _Wanted(name, bases[name])
        manifest = self._manifest(name)
        base = manifest.of(WeightsMeta).meta.base
        if not self._is(base, manifest.identity.get("base")):
            raise StoreRequestError(
                f"'{name}' is of a base that isn't in the spec as it was", expected=", ".join(bases)
            )
        folder = self.ws.store.get(manifest.kind, manifest.id).path
        if is_tuned(manifest):
            return _Wanted(base, bases[base], folder)
        merged = {"model": f"{MERGED}{manifest.id}", "revision": None, "quantize": None}
        return _Wanted(manifest.id, bases[base].model_copy(update=merged | {"new_tokens": ()}))

    def _is(self, base: str, digest: object) -> bool:
        """Whether a base of the spec is still the one that something was made for."""
        return base in self.ws.spec.bases and self.ws.models.identity(base).digest == digest

    def _manifest(self, name: str) -> Manifest[Meta]:
        target = self.ws.catalog.alias(name)
        if target is None and not _DIGITS.fullmatch(name):
            raise StoreRequestError(f"nothing is named '{name}'")
        try:
            manifest = self.ws.catalog.manifest(target or name)
        except UserError as error:
            raise StoreRequestError(error.what) from error
        if manifest.kind not in ("adapter", "model"):
            raise StoreRequestError(f"'{name}' is a {manifest.kind}", expected="a model")
        refuse_removed(self.ws, manifest)
        return manifest

    def _open(self, wanted: _Wanted) -> Loaded:
        if wanted.key not in self._loaded:
            from evals.engine.live.worker import Live
            from registry.models.load import load_model

            self._make_room()
            live = Live(load_model(wanted.key, wanted.spec, self.ws.root))
            self._loaded[wanted.key] = Loaded(live)
        # Asked last stands last: the first is the one to let go of.
        self._loaded[wanted.key] = self._loaded.pop(wanted.key)
        return self._loaded[wanted.key]

    def _make_room(self) -> None:
        idle = [key for key, loaded in self._loaded.items() if not loaded.busy]
        for key in idle[: max(0, len(self._loaded) - IN_MEMORY + 1)]:
            self._loaded.pop(key).live.close()
