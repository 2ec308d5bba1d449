"""A workspace to be looked at, of any size, as the stages leave one; made without a model.

What its data say tries to act: markup, links that run, sequences for terminals.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from registry.catalog.catalog import Catalog
from registry.catalog.database import connect
from registry.catalog.sql import fill
from registry.lineage.bitmaps import write_bitmaps
from registry.store.hashing import digest
from registry.store.objects import ObjectRef, Parent, Store
from tests.support.accounts import around, finding, measured

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EVIL = '<script>alert(1)</script> <a href="javascript:alert(2)">x</a> \x1b[31m \' " & {{ 7 * 7 }}'
SPEC = """\
bases: {nano: {model: nano}}
datasets: {talk: {path: data/talk.jsonl}}
capabilities:
  moods: {data: talk, answer: exact, goal: 0.5}
  colours: {data: talk, answer: exact, goal: 0.5}
train: {base: nano, pool: [talk]}
"""
SUBJECTS = ("moods", "colours")
_PRIME = 7919
_GROUPS = {"rows.parquet": 1 << 14}
_AT = "2026-01-02T03:04:05+00:00"
_ROWS = """
SELECT i AS row_uid, sha256(i::VARCHAR) AS row_hash, 'sft' AS kind,
       [{{role: 'user', content: concat(?, ' question ', i, ' ', {said}),
          tool_calls: NULL::VARCHAR, name: NULL::VARCHAR, train: NULL::BOOLEAN}},
        {{role: 'assistant', content: concat('answer ', i % 7), tool_calls: NULL::VARCHAR,
          name: NULL::VARCHAR, train: NULL::BOOLEAN}}] AS messages,
       NULL::VARCHAR AS tools, NULL::BOOLEAN AS label
FROM range({rows}) AS made(i) ORDER BY i
"""
# Words that differ from row to row: stored texts are as hard to unpack as people's.
_SAID = """
array_to_string(list_transform(range({words}),
    lambda j: substr(md5((hash(i * 64 + j) % 1999)::VARCHAR), 1, 3 + j % 5)), ' ')
"""
_REFS = """
SELECT i AS row_uid, sha256(i::VARCHAR) AS row_hash,
       CASE i % 10 WHEN 0 THEN 'dev' WHEN 1 THEN 'test' ELSE 'train' END AS split,
       [?]::VARCHAR[] AS tags, i // 2 * (i % 20 // 2) AS cluster, 'talk' AS source,
       'data/talk.jsonl' AS source_file, i + 1 AS source_line,
       [{{file: 'data/talk.jsonl', line: i + 1, split: 'train'}}] AS sources,
       NULL::VARCHAR AS license, '{{}}' AS meta
FROM range({first}, {rows}) AS made(i) ORDER BY i
"""
_REJECTS = """
SELECT 'ingest' AS stage, 'talk' AS source, concat('no answer: ', ?) AS reason,
       'data/talk.jsonl' AS source_file, 1000 + i AS source_line, ? AS excerpt
FROM range(3) AS made(i)
"""
_SAMPLES = """
SELECT i AS row_uid, sha256(i::VARCHAR) AS row_hash, i AS cluster,
       concat(?, ' question ', i) AS prompt, concat('answer ', i % 7) AS expected,
       CASE WHEN {right} THEN concat('answer ', i % 7) ELSE ? END AS answer,
       CASE WHEN {right} THEN 1.0 ELSE 0.0 END AS score,
       [-1.0, -2.0] AS loglikelihoods, 9 AS prompt_tokens
FROM range({items}) AS made(i) ORDER BY sha256(i::VARCHAR)
"""
_PICKS = """
SELECT {uid} AS row_uid, sha256(({uid})::VARCHAR) AS row_hash, 'moods' AS capability,
       CASE WHEN i % 3 = 0 THEN 'mend' ELSE 'gap' END AS reason, 0.5 AS score, i - 2 AS rank,
       CASE WHEN i = 3 THEN ? END AS answer
FROM range(2, {picked} + 2) AS made(i)
"""
_METRICS = """
SELECT i + 1 AS step, name, CASE name WHEN 'loss' THEN 2.0 / (i + 1) ELSE 0.001 END AS value,
       i::DOUBLE AS seconds
FROM range({steps}) AS made(i), (VALUES ('loss'), ('learning_rate')) AS names(name)
"""


@dataclass(frozen=True)
class Sizes:
    """How much there is: `items` of the newest adapter's evaluations, `few` of all others'.

    With `apart`, the rows of a selection are so far from each other in the version, and not in its
    order; `lost` are the items that a selection was told of; `wrong` is the answer where it isn't
    right.
    """

    rows: int = 40
    words: int = 2
    chains: int = 2
    items: int = 30
    few: int = 30
    picked: int = 8
    steps: int = 12
    apart: int = 1
    lost: int = 0
    wrong: str = EVIL


@dataclass
class Shown:
    """A workspace that was made: ids of what is looked at."""

    root: Path
    versions: list[str] = field(default_factory=list)
    selections: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    evals: dict[tuple[str, str], str] = field(default_factory=dict)  # adapter or "", subject
    failed: str = ""
    push: str = ""
    picked: list[int] = field(default_factory=list)  # uids of rows that every selection has


def make(root: Path, sizes: Sizes | None = None) -> Shown:
    """Make the workspace in a folder."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "gapmend.yaml").write_text(SPEC)
    maker = _Maker(Shown(root), sizes or Sizes())
    maker.make()
    return maker.made


class _Maker:
    def __init__(self, made: Shown, sizes: Sizes) -> None:
        self.made, self.sizes = made, sizes
        self.store = Store(made.root / ".gapmend")
        self.catalog = Catalog(made.root / ".gapmend")
        self.sql: DuckDBPyConnection = connect()
        self.waiting: list[ObjectRef] = []

    def make(self) -> None:
        sizes = self.sizes
        self.catalog.reserve_uids(sizes.rows)
        self.made.picked = [*range(2, sizes.picked * sizes.apart + 2, sizes.apart)]
        said = _SAID.format(words=sizes.words).strip()
        rows = self.put(
            "rows", {"rows": 1}, [], {"rows": sizes.rows},
            {"rows.parquet": fill(_ROWS.format(rows=sizes.rows, said=said), [EVIL])},
        )  # fmt: skip
        for number, count in enumerate((sizes.rows // 2, sizes.rows)):
            self.version(rows, number, count)
        self.commit()
        gap = self.gap()
        for number in range(sizes.chains):
            self.chain(number, gap)
        newest, before = self.made.adapters[-1], self.made.adapters[0]
        meta = {"object_id": newest, "kind": "adapter", "repo": "me/it", "revision": "c" * 40,
                "adapter_id": newest, "private": True, "request": None, "files": {},
                "url": "javascript:alert(3)"}  # fmt: skip
        push = self.put("push", {"of": newest}, [Parent(newest, "adapter")], meta)
        failed = self.run("train", "failed", [], error=f"RuntimeError: {EVIL}", status="failed")
        self.made.push, self.made.failed = push.id, failed.id
        self.commit()
        for target, reason in ((before, "the first"), (newest, EVIL)):
            self.catalog.move_alias(self.store, "candidate", target, reason=reason)
        self.sql.close()

    def version(self, rows: ObjectRef, number: int, count: int) -> None:
        refs = fill(_REFS.format(first=number, rows=count), [EVIL])
        splits = {"train": count - 2 * (count // 10), "dev": count // 10, "test": count // 10}
        meta = {"name": "talk", "rows": count - number, "records": count, "rejects": 3,
                "splits": splits, "clusters": count // 2, "duplicates": 0, "license": EVIL,
                "leaks": {"exact": 0, "near": 0}}  # fmt: skip
        files = {"refs.parquet": refs, "rejects.parquet": fill(_REJECTS, [EVIL, EVIL])}
        made = self.put("dataset_version", {"v": number}, [Parent(rows.id, "rows")], meta, files)
        run = self.run("ingest", f"ingest-{number}", [Parent(made.id, "version")], name="talk")
        self.made.versions.append(made.id)
        self.made.runs.append(run.id)

    def gap(self) -> ObjectRef:
        for subject in SUBJECTS:
            self.evaluated("", subject, "i % 3 = 0", self.sizes.items)
        found = [asdict(finding(name, 0.4, "tune", 0.5)) for name in SUBJECTS]
        parents = [Parent(one, "eval") for one in self.made.evals.values()]
        made = self.put("gap", {"g": 1}, parents, {"base": "nano", "findings": found})
        self.run("gap", "gap", [Parent(made.id, "gap")])
        self.commit()
        return made

    def chain(self, number: int, gap: ObjectRef) -> None:
        """Select, train, forget and promote once more."""
        sizes, last = self.sizes, number == self.sizes.chains - 1
        over = [Parent(gap.id, "gap"), Parent(self.made.versions[-1], "dataset")]
        lost = {"lost": {"colours": [*range(sizes.lost)]}}
        chosen = self.run("select", f"select-{number}", over, change=lost)
        order = 1 if sizes.apart == 1 else _PRIME
        uid = f"2 + (i - 2) * {order} % {sizes.picked} * {sizes.apart}"
        picks = fill(_PICKS.format(picked=sizes.picked, uid=uid), [EVIL])
        part = {"capability": "moods", "reason": "gap", "rows": sizes.picked, "score": 0.5}
        selection = self.put(
            "selection", {"s": number}, [Parent(chosen.id, "run"), *over],
            {"base": "nano", "rows": sizes.picked, "replay_rows": 0, "round": 0, "parts": [part],
             "budget": {"moods": sizes.picked}, "set_aside": {EVIL: 2}},
            {"rows.parquet": picks}, bitmap=self.made.picked,
        )  # fmt: skip
        of_it = [Parent(selection.id, "selection")]
        config = {"rank": 2 + number % 30, "learning_rate": 0.001, "note": EVIL}
        key = f"train-{number}"
        run = digest({"kind": "run", "identity": {"stage": "train", "key": key}})
        figures = self.put(
            "metrics", {"m": number}, [Parent(run, "run")], {"rows": 2, "steps": sizes.steps},
            {"metrics.parquet": _METRICS.format(steps=sizes.steps)},
        )  # fmt: skip
        outputs = [{"role": "metrics", "kind": "metrics", "id": figures.id}]
        trained = self.run(
            "train", key, of_it, config=config, outputs=outputs, selection=selection.id
        )
        adapter = self.adapter(number, [Parent(trained.id, "run"), *of_it])
        self.made.selections.append(selection.id)
        self.made.adapters.append(adapter.id)
        items = sizes.items if last else sizes.few
        for subject, right in zip(SUBJECTS, ("i % 3 < 2", f"i % 5 = {number % 5}"), strict=True):
            self.evaluated(adapter.id, subject, right, items)
        self.judged(number, adapter)
        self.commit()

    def adapter(self, number: int, parents: list[Parent]) -> ObjectRef:
        with self.store.draft() as draft:
            config = {"base_model_name_or_path": "nano", "peft_type": "LORA", "r": 2 + number % 30}
            (draft / "adapter_config.json").write_text(json.dumps(config))
            (draft / "adapter_model.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}      ")
            meta = {"base": "nano", "method": "lora", "rank": 2 + number % 30, "round": 0,
                    "rows": self.sizes.picked, "steps": self.sizes.steps, "tokens": 1000,
                    "seconds": 1.5, "loss": 0.25}  # fmt: skip
            identity = {"base": "b" * 64, "n": number}
            made = self.store.put("adapter", draft, identity=identity, parents=parents, meta=meta)
        self.waiting.append(made)
        return made

    def judged(self, number: int, adapter: ObjectRef) -> None:
        found = measured("dev", 0.3, lost=3, verdict="forgotten")
        parents = [Parent(adapter.id, "adapter")]
        kept = [{**asdict(one), "guard": "colours", "n": self.sizes.few} for one in found.kept]
        meta = {"adapter": adapter.id, "scale": 1.0, "split": "dev", "kept": kept,
                "closed": {"moods": asdict(found.closed["moods"])},
                "changes": {"colours": asdict(found.changes["colours"])}}  # fmt: skip
        evals = [
            Parent(key, "eval") for (of, _), key in self.made.evals.items() if of == adapter.id
        ]
        self.put("forgetting", {"f": number}, [*parents, *evals], meta)
        self.run("forget", f"forget-{number}", parents, adapter=adapter.id)
        meta = {"base": "nano", "adapter_id": adapter.id, "promoted": number == 0, "split": "test",
                "tests": {}, "looks": 1, "reasons": [] if number == 0 else [EVIL]}  # fmt: skip
        self.put("promotion", {"p": number}, parents, meta)
        self.run("promote", f"promote-{number}", parents, adapter=adapter.id)

    def evaluated(self, adapter: str, subject: str, right: str, items: int) -> None:
        score = around(0.5, items)
        meta = {"subject": subject, "split": "dev", "arm": "zero_shot", "n": items, "rejects": 0,
                "mean": score.mean, "low": score.low, "high": score.high, "base": "nano",
                "prompt_tokens_mean": 9.0, "adapter_id": adapter or None, "scale": 1.0}  # fmt: skip
        samples = fill(_SAMPLES.format(right=right, items=items), [EVIL, self.sizes.wrong])
        parents = [Parent(adapter, "adapter")] if adapter else []
        identity = {"adapter": adapter, "subject": subject}
        made = self.put("eval", identity, parents, meta, {"samples.parquet": samples})
        self.made.evals[adapter, subject] = made.id

    def run(
        self, stage: str, key: str, parents: list[Parent], *, config: Any = None,
        status: str = "done", error: str = "", outputs: Any = (), **inputs: Any,
    ) -> ObjectRef:  # fmt: skip
        meta = {
            "stage": stage, "key": key, "status": status, "started_at": _AT, "ended_at": _AT,
            "seconds": 1.5, "code_version": 1, "inputs": inputs, "config": config or {}, "seed": 0,
            "result": {"error": error} if error else {}, "outputs": list(outputs),
            "environment": {"python": "3.11", "packages": {"torch": "2.13.0"}},
            "hardware": {"cpu": "x86_64", "cores": 2, "ram_bytes": 1},
        }  # fmt: skip
        made = self.put("run", {"stage": stage, "key": key}, parents, meta)
        self.made.runs.append(made.id)
        return made

    def put(
        self, kind: str, identity: Any, parents: list[Parent], meta: Any,
        files: dict[str, str] | None = None, *, bitmap: list[int] | None = None,
    ) -> ObjectRef:  # fmt: skip
        if files is None:
            made = self.store.put(kind, None, identity=identity, parents=parents, meta=meta)
        else:
            with self.store.draft() as draft:
                for name, query in files.items():
                    self.write(draft / name, query, _GROUPS.get(name, 100_000))
                if bitmap is not None:
                    write_bitmaps(bitmap, draft / "bitmaps.parquet")
                made = self.store.put(kind, draft, identity=identity, parents=parents, meta=meta)
        self.waiting.append(made)
        return made

    def write(self, path: Path, query: str, group: int) -> None:
        """Write rows as the stages do: in groups of so many."""
        found = self.sql.execute(query).to_arrow_reader(group)
        repeated = [one for one in found.schema.names if one != "messages"]
        with pq.ParquetWriter(
            path, found.schema, compression="zstd", use_dictionary=repeated
        ) as file:
            for batch in found:
                file.write_batch(batch)

    def commit(self) -> None:
        self.catalog.commit(self.waiting)
        self.waiting.clear()
