"""What the spec says of splits, where rows that were committed before don't follow it. Pure.

What was committed stays (see `splits`): a row of train that moved to test would be measured by a
model that may have seen it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.datasets.versions.splits import target_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from registry.datasets.spec import DatasetSpec

_NEAR = 0.02  # of the dataset's rows: whole groups of near-duplicates don't come out even
_FEW = 2  # rows

REMEDY = (
    "to split it anew, give the dataset another name; but what was trained on rows that are then "
    "in test has seen them"
)


def not_followed(
    spec: DatasetSpec,
    files: Sequence[Sequence[str]],
    earlier: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
) -> list[str]:
    """Return what of a dataset's splits is said otherwise than it was, and stays as it was.

    Args:
        spec: what the spec says of it now.
        files: label, split and hash of each of its files.
        earlier: the inputs of every run that made a version of it, oldest first.
        counts: split -> rows, in the newest of them.
    """
    return [*_sizes(spec, earlier, counts), *_files(files, earlier)]


def _sizes(
    spec: DatasetSpec, earlier: Sequence[Mapping[str, Any]], counts: Mapping[str, int]
) -> Iterator[str]:
    rows = sum(counts.values())
    said = spec.split.model_dump(mode="json")
    for split in spec.carved:
        before = [run["spec"]["split"][split] for run in earlier]
        other = next((size for size in reversed(before) if size != said[split]), said[split])
        if other == said[split]:
            continue
        wanted, there = target_rows(said[split], rows), counts.get(split, 0)
        if abs(wanted - there) > max(_FEW, _NEAR * rows):
            yield (
                f"{split} is {_shown(said[split])} now and was {_shown(other)}, and rows that were "
                f"ingested stay where they are: {split} has {there:,} rows, not {wanted:,}"
            )


def _files(files: Sequence[Sequence[str]], earlier: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    now = {digest: split for _, split, digest in files}
    moved: dict[str, str] = {}
    for run in earlier:
        for label, split, digest in run["files"]:
            if now.get(digest, split) != split:
                moved.setdefault(digest, f"{label} was for {split} and is for {now[digest]} now")
    for said in moved.values():
        yield f"{said}, and its rows that were ingested stay where they were"


def _shown(size: float | None) -> str:
    return "left to the default" if size is None else f"{size:g}"
