"""Reading a dataset's files into rows: each content once, every occurrence and reject listed."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.errors import UserError
from registry.readers import read_records
from registry.rows import Row, answer, content_hash, user_text
from registry.splits import strongest
from registry.turns import UnusableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from registry.datasets import SourceFile, Sources
    from registry.readers import Record
    from registry.rows import Content

_COMMONEST = 3  # reasons named when ingest stops


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where a row stands: file as recorded, line from 1, and the split of that file."""

    file: str
    line: int
    split: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was not taken; equal `reason`s are counted together."""

    file: str
    line: int
    reason: str
    detail: str = ""

    @property
    def text(self) -> str:
        """The reason with what tells this record apart."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(slots=True)
class Entry:
    """One content, wherever it occurs; `meta` is of its first occurrence."""

    row_hash: str
    text: str
    meta: str
    sources: list[Occurrence]

    @property
    def given(self) -> str:
        """The strongest split among its files."""
        return strongest(source.split for source in self.sources)


@dataclass
class Collected:
    """All of a dataset's files, read."""

    entries: dict[str, Entry] = field(default_factory=dict)  # by row_hash, in source order
    rejects: list[Reject] = field(default_factory=list)
    records: int = 0

    @property
    def leaked(self) -> int:
        """How many contents stand in files of more than one split."""
        return sum(len({s.split for s in e.sources}) > 1 for e in self.entries.values())


@dataclass(frozen=True, slots=True)
class _Usable:
    content: Content
    row_hash: str
    meta: str


def collect(
    sources: Sources,
    labels: Collection[str] | None,
    take: Callable[[str, Content], None],
    advance: Callable[[int], None],
) -> Collected:
    """Read every record of every file.

    Args:
        sources: the files and their format.
        labels: the answers that are allowed; None allows any.
        take: called once for each content, with its hash.
        advance: told the number of records read since the last call.

    Raises:
        UserError: a file that can't be read as a whole.
    """
    found = Collected()
    sample = _sample(sources, labels)
    for file in sources.files:
        for record in read_records(file.path):
            found.records += 1
            advance(1)
            try:
                usable = _usable(record, sources, labels)
            except UnusableError as error:
                found.rejects.append(Reject(file.label, record.line, error.reason, error.detail))
                continue
            if sample is None or usable.row_hash in sample:
                _add(found, usable, file, record.line, take)
    return found


def first_row(sources: Sources, dataset: str) -> Row | None:
    """Return the first record that can be used as the row it will be, but for its place.

    Raises:
        UserError: a file that can't be read as a whole.
    """
    for file in sources.files:
        for record in read_records(file.path):
            try:
                usable = _usable(record, sources, None)
            except UnusableError:
                continue
            content = usable.content
            return Row(
                uid=0,
                row_hash=usable.row_hash,
                kind=content.kind,
                messages=content.messages,
                chosen=content.chosen,
                rejected=content.rejected,
                label=content.label,
                tools=content.tools,
                split=file.split,
                cluster=0,
                dataset=dataset,
                source_file=file.label,
                source_line=record.line,
                license="",
                tags=(),
                meta=usable.meta,
            )
    return None


def check_rejects(found: Collected, allowed: float, name: str) -> None:
    """Stop when too many records were rejected.

    Raises:
        UserError: with the commonest reasons and how to allow it.
    """
    count = len(found.rejects)
    if not found.records or count / found.records <= allowed:
        return
    reasons = Counter(reject.reason for reject in found.rejects).most_common(_COMMONEST)
    told = "; ".join(f"{n} x {reason} ({_first(found, reason)})" for reason, n in reasons)
    share = count / found.records
    raise UserError(
        f"{count} of {found.records} rows of dataset '{name}' can't be used: {told}",
        expected=f"at most {allowed:.1%} of them",
        fix=f"mend the rows, or set datasets.{name}.allow_rejects: {_rounded_up(share)}",
    )


def _first(found: Collected, reason: str) -> str:
    first = next(reject for reject in found.rejects if reject.reason == reason)
    return f"first {first.file}:{first.line}" + (f", {first.detail}" if first.detail else "")


def _rounded_up(share: float) -> float:
    return min(1.0, (int(share * 100) + 1) / 100)


def _usable(record: Record, sources: Sources, labels: Collection[str] | None) -> _Usable:
    """Turn a record into content, hash and meta, all of which UTF-8 can say."""
    if record.value is None:
        reason, _, detail = (record.error or "").partition(": ")
        raise UnusableError(reason, detail)
    content = sources.format.content(record.value)
    meta = sources.format.meta(record.value)
    try:
        meta.encode()
        digest = content_hash(content)
    except UnicodeEncodeError as error:
        raise UnusableError(
            "not valid Unicode (invalid UTF-8 or half of a surrogate pair)"
        ) from error
    if labels is not None and content.kind == "sft" and answer(content) not in labels:
        raise UnusableError("label not in the label set", repr(answer(content))[:80])
    return _Usable(content, digest, meta)


def _add(
    found: Collected,
    usable: _Usable,
    file: SourceFile,
    line: int,
    take: Callable[[str, Content], None],
) -> None:
    occurrence = Occurrence(file.label, line, file.split)
    entry = found.entries.get(usable.row_hash)
    if entry is not None:
        entry.sources.append(occurrence)
        return
    text = user_text(usable.content)
    found.entries[usable.row_hash] = Entry(usable.row_hash, text, usable.meta, [occurrence])
    take(usable.row_hash, usable.content)


def _sample(sources: Sources, labels: Collection[str] | None) -> frozenset[str] | None:
    """Return the hashes of `num_samples` rows, chosen by hash; None takes all."""
    if sources.num_samples is None:
        return None
    hashes = {usable.row_hash for usable in _all_usable(sources, labels)}
    return frozenset(heapq.nsmallest(sources.num_samples, hashes, key=_sample_order))


def _sample_order(row_hash: str) -> bytes:
    return hashlib.sha256(f"sample:{row_hash}".encode()).digest()


def _all_usable(sources: Sources, labels: Collection[str] | None) -> Iterator[_Usable]:
    for file in sources.files:
        for record in read_records(file.path):
            try:
                yield _usable(record, sources, labels)
            except UnusableError:
                continue  # counted by the reading that follows
