"""A registry of any size: manifests as the stages write them, indexed by the rebuild's own code.

Chains of rounds, as mend makes them: each round is a run on a selection and the adapter before it,
and an adapter. Every tenth chain begins a dataset version, every tenth round a selection. The
objects' files are left out: 100,000 adapters would be 700 GB, and nothing measured here reads one.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from registry.catalog.database import create_catalog
from registry.catalog.open import MARK_NAME
from registry.store.hashing import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from registry.store.objects import ManifestJson

BASES = 7
SHARED = 10  # chains to a dataset version, rounds to a selection
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_FILES = (
    *("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"),
    *("tokenizer_config.json", "chat_template.jinja"),
)
_ENVIRONMENT = {
    "python": "3.11.9",
    "platform": "Linux-6.1-x86_64-with-glibc2.36",
    "packages": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "duckdb": "1.5.6"},
}


def make(root: Path, chains: int, rounds: int) -> None:
    """Make the catalog of a store with chains x rounds adapters and as many runs."""
    root.mkdir(parents=True, exist_ok=True)
    create_catalog(root, Registered().manifests(chains, rounds))
    (root / MARK_NAME).touch()


class Registered:
    """Makes the manifests one after another, a second apart."""

    def __init__(self) -> None:
        """Begin with none."""
        self._count = 0

    def manifests(self, chains: int, rounds: int) -> Iterator[ManifestJson]:
        """Give all manifests, parents first."""
        base = self._manifest("base", {"base": 0}, {}, {"name": "nano"})
        yield base
        for chain in range(chains):
            if chain % SHARED == 0:
                rows = self._manifest("rows", {"rows": chain}, {}, {"rows": 2600})
                yield rows
                version = self._version(chain, rows["id"])
                yield version
            yield from self._chain(chain, rounds, version["id"], base["id"])

    def _chain(self, chain: int, rounds: int, version: str, base: str) -> Iterator[ManifestJson]:
        before: dict[str, str] = {}
        for number in range(rounds):
            if number % SHARED == 0:
                selection = self._selection(chain, number, version)
                yield selection
            parents = {selection["id"]: "selection", base: "base", **before}
            run = self._run(chain, number, selection["id"], parents)
            yield run
            adapter = self._adapter(chain, number, {run["id"]: "run", **before})
            yield adapter
            before = {adapter["id"]: "start"}

    def _version(self, chain: int, rows: str) -> ManifestJson:
        meta = {
            "name": f"data-{chain}",
            "rows": 2600,
            "rejects": 0,
            "license": "CC-BY-4.0",
            "splits": {"train": 600, "dev": 1000, "test": 1000},
        }
        files = ("refs.parquet", "rejects.parquet")
        return self._manifest("dataset_version", {"v": chain}, {rows: "rows"}, meta, files)

    def _selection(self, chain: int, number: int, version: str) -> ManifestJson:
        meta = {
            "base": "nano",
            "rows": 2240,
            "replay_rows": 448,
            "round": number,
            "budget": {"intent": 900, "days": 640, "replay": 448},
        }
        identity = {"selection": [chain, number]}
        files = ("rows.parquet", "bitmaps.parquet")
        return self._manifest("selection", identity, {version: "dataset"}, meta, files)

    def _run(
        self, chain: int, number: int, selection: str, parents: Mapping[str, str]
    ) -> ManifestJson:
        key = _hash(chain, number)
        meta = {
            "stage": "train",
            "key": key,
            "status": "done",
            "seconds": 41.5,
            "seed": number,
            "started_at": _BEGAN.isoformat(),
            "ended_at": _BEGAN.isoformat(),
            "code_version": 3,
            "inputs": {"name": "train", "selection": selection, "base": _hash("base"), "rank": 16},
            "config": {"method": "lora", "rank": 16, "budget_rows": 2000, "replay": 0.2},
            "result": {"loss": 0.126, "steps": 140, "losses": [1 / n for n in range(1, 21)]},
            "outputs": [{"role": "adapter", "kind": "adapter", "id": _hash("a", chain, number)}],
            "environment": _ENVIRONMENT,
            "hardware": {"cpu": "x86_64", "cores": 2, "ram_bytes": 25_276_514_304},
        }
        return self._manifest("run", {"stage": "train", "key": key}, parents, meta)

    def _adapter(self, chain: int, number: int, parents: Mapping[str, str]) -> ManifestJson:
        identity = {"base": _hash("base"), "config": _hash("c"), "weights": _hash(chain, number)}
        meta = {
            "base": f"base-{chain % BASES}",
            "peft_type": "LORA",
            "rank": 16,
            "bytes": 7_000_000,
            "method": "lora",
            "alpha": 32,
            "rows": 2240,
            "steps": 140,
            "tokens": 91_230,
            "seconds": 41.5,
            "loss": 0.126,
            "round": number,
        }
        return self._manifest("adapter", identity, parents, meta, _FILES)

    def _manifest(
        self,
        kind: str,
        identity: Mapping[str, Any],
        parents: Mapping[str, str],
        meta: Mapping[str, Any],
        files: Sequence[str] = (),
    ) -> ManifestJson:
        self._count += 1
        at = _BEGAN + timedelta(seconds=self._count)
        return {
            "format": 1,
            "kind": kind,
            "id": digest({"kind": kind, "identity": identity}),
            "identity": identity,
            "files": {name: {"sha256": _hash(name, self._count), "bytes": 4711} for name in files},
            "parents": [{"id": parent, "role": role} for parent, role in parents.items()],
            "meta": {"created_at": at.isoformat(timespec="microseconds"), **meta},
        }


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
