"""A dataset on the Hub: its data files at one commit, fetched by name; no script of it ever runs.

Which files were listed at a commit is kept in the workspace's cache: a dataset that is pinned and
was fetched is read without a connection, and one that was fetched in part is not taken for whole.
"""

from __future__ import annotations

import glob
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from registry.errors import HubError
from registry.hub.dataset_splits import DATA, choose
from registry.hub.errors import call_hub, gated, said_by_hub
from registry.hub.whole import drop_damaged, sent_damaged
from registry.store.held import digest_of
from registry.store.kept import SUFFIX, keep, kept
from registry.store.paths import CACHE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CARD = "README.md"
_LISTED: dict[tuple[str, str, str | None], tuple[str, tuple[str, ...]]] = {}  # of this process


@dataclass(frozen=True)
class HubSource:
    """Which rows of which repository; `splits` says which of its splits each of ours is."""

    repo: str
    revision: str | None = None
    subset: str | None = None
    folder: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train"})

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"hub {self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file, fetched: where it lies, how it is recorded, and which split of ours it is."""

    path: Path
    label: str
    split: str


def hub_files(source: HubSource, root: Path) -> tuple[HubFile, ...]:
    """Return the files of a Hub's dataset in the Hub's cache; the label has the commit.

    Args:
        source: the dataset.
        root: the workspace, whose cache keeps what was listed.

    Raises:
        UserError: no such repository, revision, subset or split; no data files; not in the cache
            and the Hub isn't reached.
    """
    commit, names = _listed(source, root / CACHE / "hub")
    pinned = f"{source.repo}@{commit}"
    card = _card(source, commit) if _CARD in names else {}
    chosen = choose(names, card, source.subset, source.folder, source.splits, pinned)
    wanted = [name for names_of in chosen.values() for name in names_of]
    folder = _fetched(source, commit, wanted)
    return tuple(
        HubFile(folder / name, f"{pinned}/{name}", split)
        for split, names_of in chosen.items()
        for name in names_of
    )


def _listed(source: HubSource, cache: Path) -> tuple[str, tuple[str, ...]]:
    """Return the commit and the names of its files, asked of the Hub at most once a process."""
    key = (os.environ.get("HF_ENDPOINT", ""), source.repo, source.revision)
    if key not in _LISTED:
        revision = source.revision or "main"
        pinned = _COMMIT.fullmatch(revision)
        found = _kept(source.repo, revision, cache) if pinned else None
        if found is None:
            found = _asked(source)
            if found is not None:
                _keep(source.repo, revision, found, cache)
        _LISTED[key] = found or _kept_offline(source, revision, cache)
    return _LISTED[key]


def _asked(source: HubSource) -> tuple[str, tuple[str, ...]] | None:
    """Ask the Hub; None if it is switched off or isn't reached."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if constants.is_offline_mode():
        return None
    try:
        info = HfApi().dataset_info(source.repo, revision=source.revision)
    except RevisionNotFoundError:
        raise HubError(
            f"no revision {source.revision}", source.where, "a branch, a tag or a commit of it"
        ) from None
    except GatedRepoError as error:
        raise gated(error, source.repo, source.where) from None
    except RepositoryNotFoundError:
        raise HubError(
            "no dataset on the Hub that you may read",
            source.where,
            fix="check the spelling; for a private or gated dataset, log in with `hf auth login`",
        ) from None
    except HfHubHTTPError as error:
        raise HubError(f"the Hub refuses: {said_by_hub(error)}", source.where) from None
    except Exception as error:
        if not _is_unreached(error):
            raise
        return None
    return str(info.sha), tuple(sorted(one.rfilename for one in info.siblings or ()))


def _is_unreached(error: Exception) -> bool:
    """Whether there was no answer at all, of whichever HTTP library the client uses."""
    library = type(error).__module__.partition(".")[0]
    return library.startswith(("httpx", "httpcore", "requests", "urllib3")) or isinstance(
        error, ConnectionError | TimeoutError
    )


def _kept_offline(source: HubSource, revision: str, cache: Path) -> tuple[str, tuple[str, ...]]:
    """Return what was listed when this revision was asked for last."""
    said = kept(_file_of(source.repo, revision, cache, "commit"))
    commit = revision if said is None else said.decode()
    found = _kept(source.repo, commit, cache)
    if found is None:
        raise HubError(
            "not in the cache, and the Hub isn't reached",
            source.where,
            fix="ingest it once with a connection",
        )
    return found


def _card(source: HubSource, commit: str) -> Mapping[str, Any]:
    """Return the metadata at the head of the card; {} where there is none that can be read."""
    import yaml

    text = (_fetched(source, commit, [_CARD]) / _CARD).read_text("utf-8", errors="replace")
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise HubError(f"its {_CARD} has broken metadata: {said}", source.where) from None
    return metadata if isinstance(metadata, dict) else {}


def _fetched(source: HubSource, commit: str, names: Sequence[str]) -> Path:
    """Return the snapshot's folder with these files in it; what is there isn't asked for again."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    missing = list(names)
    patterns = [glob.escape(name) for name in names]
    dropped: tuple[str, ...] = ()
    for offline in (True, False, False):  # once more where what came was damaged
        dropped = ()
        with suppress(LocalEntryNotFoundError):  # and of what is there, files may lack
            folder = call_hub(
                partial(_snapshot, source, commit, names, offline=offline), source.repo
            )
            dropped = drop_damaged(folder, patterns, digest_of)
            missing = [name for name in names if not (folder / name).is_file()]
            if not missing:
                return folder
        if not offline and not dropped:
            break
    if dropped:
        raise sent_damaged(source.where, dropped[0])
    raise HubError(
        f"{missing[0]} is not in the cache, and the Hub isn't reached",
        source.where,
        fix="ingest it with a connection",
    )


def _snapshot(source: HubSource, commit: str, names: Sequence[str], *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(name) for name in names]
    return Path(
        snapshot_download(
            source.repo,
            repo_type="dataset",
            revision=commit,
            allow_patterns=patterns,
            local_files_only=offline,
        )
    )


def _keep(repo: str, revision: str, found: tuple[str, tuple[str, ...]], cache: Path) -> None:
    commit, names = found
    wanted = [name for name in names if name == _CARD or DATA.search(name) or name.endswith(".py")]
    keep(_file_of(repo, commit, cache, "json"), json.dumps(wanted).encode())
    if revision != commit:
        keep(_file_of(repo, revision, cache, "commit"), commit.encode())


def _kept(repo: str, commit: str, cache: Path) -> tuple[str, tuple[str, ...]] | None:
    names = kept(_file_of(repo, commit, cache, "json"))
    return None if names is None else (commit, tuple(json.loads(names)))


def _file_of(repo: str, revision: str, cache: Path, kind: str) -> Path:
    return cache / f"{quote(repo, safe='')}@{quote(revision, safe='')}.{kind}{SUFFIX}"
