"""What quantising cost in answers: the GGUF files that llama.cpp answered dev items with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evals.verdicts.forgetting import GuardFinding
from pipeline.pages.changed import AnswerChanged, changed_answers
from pipeline.pages.tables import PAIRED, Table, paired
from registry.store.kinds import ExportMeta
from registry.store.read_back import read_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.workspace.store import WorkspaceStore

_UIDS = {"lost_uids": (), "gained_uids": ()}  # which items: in the evaluations


@dataclass(frozen=True)
class QuantisedFile:
    """A quantised file beside the adapter that is in it, on dev.

    Attributes:
        export_id: of the record.
        dtype: q4_k_m and its like.
        bytes: of all that was exported.
        findings: what each capability and guard came to.
        changed: the first items that changed.
    """

    export_id: str
    dtype: str
    bytes: int
    findings: tuple[GuardFinding, ...]
    changed: tuple[AnswerChanged, ...]


def quantised_files(ws: WorkspaceStore, adapter: str) -> tuple[QuantisedFile, ...]:
    """Return the newest scored file of each type that has this adapter in it."""
    newest = {
        str(one.meta.dtype): one
        for one in ws.catalog.committed(ExportMeta, adapter_id=adapter)
        if one.meta.answers
    }
    found = []
    for dtype, one in newest.items():
        told = one.meta.answers
        before, after = (tuple(a[f"{which}_eval"] for a in told) for which in ("before", "after"))
        where = f"export {one.id[:12]}"
        found.append(
            QuantisedFile(
                export_id=one.id,
                dtype=dtype,
                bytes=one.meta.bytes,
                findings=tuple(read_back(GuardFinding, {**_UIDS, **a}, where) for a in told),
                changed=changed_answers(ws, before, after),
            )
        )
    return tuple(found)


def quantised_tables(files: Sequence[QuantisedFile]) -> Iterator[Table]:
    """Yield a table of each file, and of its first items that changed."""
    head = ("on dev", *PAIRED, "p", "verdict")
    for file in files:
        rows = tuple(
            (
                one.guard,
                *paired(one),
                f"{one.p_bh:.2g}",
                one.verdict,
            )
            for one in file.findings
        )
        yield Table(f"{file.dtype}, {file.bytes / 1e6:,.1f} MB", head, rows)
        items = tuple(
            (one.subject, one.way, one.prompt, one.expected, one.before, one.after)
            for one in file.changed
        )
        if items:
            columns = ("on dev", "", "question", "expected", "before", f"in {file.dtype}")
            yield Table(f"{file.dtype}: the first items that changed", columns, items, folded=True)
