"""A small program that commits objects as the stages do, and says so when they are acknowledged.

    python writer.py ROOT ROUNDS

Prints `start`, then one line `ack <kind> <id>` for each acknowledged object, then `end`. Run again
with the same arguments it finishes the work: every id is decided by the arguments alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from registry.catalog.catalog import Catalog
from registry.store.hashing import digest
from registry.store.objects import ObjectRef, Parent, Store

BLOCK = 4_096


def dataset(store: Store, number: int) -> ObjectRef:
    with store.draft() as draft:
        (draft / "refs.bin").write_bytes(f"refs {number}".encode() * BLOCK)
        (draft / "rejects.bin").write_bytes(b"")
        return store.put("made_dataset", draft, identity={"number": number}, meta={"n": number})


def adapter(store: Store, number: int, run_id: str) -> ObjectRef:
    with store.draft() as draft:
        (draft / "adapter_model.safetensors").write_bytes(bytes([number % 256]) * BLOCK)
        (draft / "tokenizer").mkdir()
        (draft / "tokenizer" / "tokenizer.json").write_text(f'{{"n": {number}}}')
        parents = [Parent(run_id, "run")]
        return store.put("made_adapter", draft, identity={"number": number}, parents=parents)


def acknowledge(catalog: Catalog, *refs: ObjectRef) -> None:
    catalog.commit(refs)
    for ref in refs:
        print("ack", ref.kind, ref.id, flush=True)


RUN = {
    "stage": "train", "status": "done", "started_at": "2026-01-01T00:00:00+00:00",
    "ended_at": "2026-01-01T00:00:01+00:00", "seconds": 1.0, "code_version": 1, "inputs": {},
    "result": {},
}  # fmt: skip


def main() -> None:
    root, rounds = Path(sys.argv[1]), int(sys.argv[2])
    store, catalog = Store(root), Catalog(root)
    print("start", flush=True)
    for number in range(rounds):
        made = dataset(store, number)
        acknowledge(catalog, made)
        identity = {"stage": "train", "key": str(number)}
        run_id = digest({"kind": "run", "identity": identity})
        tuned = adapter(store, number, run_id)
        parents = [Parent(made.id, "dataset")]
        meta = RUN | {"key": str(number)}
        run = store.put("run", None, identity=identity, parents=parents, meta=meta)
        acknowledge(catalog, tuned, run)
        if catalog.alias(f"newest-{number}") != tuned.id:
            catalog.move_alias(store, f"newest-{number}", tuned.id, reason="made")
        print("ack-alias", f"newest-{number}", tuned.id, flush=True)
        print("ack-uids", catalog.reserve_uids(10), flush=True)
    print("end", flush=True)


if __name__ == "__main__":
    main()
