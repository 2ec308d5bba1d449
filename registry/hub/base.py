"""A base on the Hub: its files at a commit, and what is known of it before they are fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import HubError
from registry.hub.errors import gated, said_by_hub
from registry.hub.whole import whole_snapshot
from registry.store.hashing import remembered_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PREFIX = re.compile(r"[0-9a-f]{7,40}")
_NAMED = 3  # commits that a message names


def fetch_snapshot(
    repo: str,
    revision: str | None,
    patterns: Sequence[str],
    where: str,
    root: Path,
    ignored: Sequence[str] = (),
) -> Path:
    """Return the folder in the Hub's cache with a repository's files; its name is the commit.

    Without a connection it is found in a cache without references too, as copies of one are: by the
    first digits of its commit, or because it is the only one.

    Args:
        repo: its id.
        revision: a branch, a tag or a commit.
        patterns: the files that are wanted.
        where: the base in the spec, for the message.
        root: the workspace, whose cache keeps the hashes of large files.
        ignored: of the patterns' files, those that aren't wanted.

    Raises:
        UserError: there is none that may be read, no such revision, or the Hub isn't reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch() -> Path:
        found = snapshot_download(
            repo, revision=revision, allow_patterns=[*patterns], ignore_patterns=[*ignored]
        )
        return Path(found)

    try:
        path = whole_snapshot(fetch, patterns, repo, lambda file: remembered_digest(file, root))
    except LocalEntryNotFoundError as error:
        why = f" ({said_by_hub(error)})" if isinstance(error.__cause__, HfHubHTTPError) else ""
        path = _cached(repo, revision, where, why)
    except GatedRepoError as error:
        raise gated(error, repo, f"{where}.model") from None
    except RevisionNotFoundError:
        raise HubError(
            f"{repo} has no revision {revision} on the Hub",
            f"{where}.revision",
            "a branch, a tag or a commit of it",
        ) from None
    except RepositoryNotFoundError:
        raise HubError(
            f"{repo} is neither a folder nor a model on the Hub that you may read",
            f"{where}.model",
            "a folder, a Hub id or 'nano'",
            "check the spelling; for a private or gated model, log in with `hf auth login`",
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise HubError(f"{repo} can't be fetched: {said_by_hub(error)}", f"{where}.model") from None
    if not _COMMIT.fullmatch(path.name):
        raise HubError(f"{repo}: no commit is known for {path}", f"{where}.revision")
    return path


def _cached(repo: str, revision: str | None, where: str, why: str) -> Path:
    """Return a snapshot that the cache has, though no reference leads to it.

    Raises:
        UserError: there is none, or several.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    kept = sorted(one for one in (folder / "snapshots").glob("*") if _COMMIT.fullmatch(one.name))
    asked = revision or ""
    found = [one for one in kept if one.name.startswith(asked)]
    if len(found) == 1 and (revision is None or _PREFIX.fullmatch(revision)):
        return found[0]
    if kept:
        raise HubError(
            f"the Hub isn't reached{why}, and its cache has {len(kept)} commits of {repo}, none of "
            f"which is known as {revision or 'main'}",
            f"{where}.revision",
            expected=" or ".join(one.name for one in kept[:_NAMED]),
        )
    raise HubError(
        f"{repo} is neither a folder nor in the Hub's cache, and the Hub isn't reached{why}",
        f"{where}.model",
        fix="give an existing folder, or fetch it once with a connection",
    )


def stored_parameters(pinned: str, where: str) -> int:
    """Count the weights of a model whose files aren't here yet, by the headers the Hub serves.

    Args:
        pinned: 'owner/repo@commit'.
        where: for the message.

    Raises:
        UserError: it has no safetensors, or the Hub isn't reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError

    repo, _, commit = pinned.partition("@")
    try:
        found = HfApi().get_safetensors_metadata(repo, revision=commit)
    except NotASafetensorsRepoError:
        raise HubError(
            f"{repo} has no safetensors",
            f"{where}.model",
            "*.safetensors: a pickle can run code when it is loaded",
        ) from None
    except (HfHubHTTPError, OSError) as error:
        said = said_by_hub(error)
        raise HubError(f"weights of {repo} aren't in the cache: {said}", where) from None
    return sum(found.parameter_count.values())
