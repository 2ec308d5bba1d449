"""The card (README.md) of a dataset version."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from registry.publish.markdown import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.store.kinds import VersionMeta
    from registry.store.manifest import Manifest


def dataset_card(
    manifest: Manifest[VersionMeta], name: str, repo_id: str, license_: str, files: Sequence[str]
) -> str:
    """Return the card of a dataset version.

    Args:
        manifest: of the version.
        name: the dataset's.
        repo_id: where it goes, owner/name.
        license_: of its rows, by the Hub's name.
        files: `data/<split>.parquet` of each split that it has.
    """
    from huggingface_hub import DatasetCardData

    meta = manifest.meta
    splits = [PurePosixPath(path).stem for path in files]
    data = DatasetCardData(license=license_, pretty_name=name, tags=["gapmend"])
    data["configs"] = [
        {
            "config_name": "default",
            "data_files": [{"split": s, "path": f"data/{s}.parquet"} for s in splits],
        }
    ]
    counts = "\n".join(f"| {split} | {meta.splits.get(split, 0):,} |" for split in splits)
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {as_text(name)}\n\n"
        f"Version `{manifest.id}`: the same rows in the same splits have this id on any machine."
        f"\n\n| split | rows |\n|---|---|\n{counts}\n\n"
        "Near-duplicates share a `cluster`, and no cluster stands in both a training and a test "
        "split. `messages` are the turns; `row_hash` names a row's content; `meta` is a JSON "
        "object of the columns that have no place of their own.\n\n"
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("{repo_id}")\n```\n\n'
        f"Made by gapmend; `gapmend pull datasets/{repo_id}` reads it back as the same version.\n"
    )
