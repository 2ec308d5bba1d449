"""The push of one parcel: all is there, byte for byte, before main moves, and it moves once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import HubError
from registry.hub.repository import ParcelFile, all_uploaded, check_uploaded
from registry.publish.parcel import CARD, RECORD, SIGNATURE, Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from registry.hub.repository import RemoteFile, Repository


@dataclass(frozen=True)
class Delivery:
    """Where a parcel is on the Hub.

    Attributes:
        commit: what holds it.
        already: it was there, with its tag, before this call.
        request: the number of the pull request that waits for its merge; None when main has it.
    """

    commit: str
    already: bool
    request: int | None = None


def deliver(
    repository: Repository,
    parcel: Parcel,
    *,
    private: bool,
    as_request: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Delivery:
    """Bring a parcel to the Hub; killed at any point, the next call finishes it.

    All files go into a pull request. When the Hub's own hashes say that it holds them, it is
    merged, so that main moves once, and the commit is tagged with the object's id.

    Args:
        repository: where to; made if it isn't there.
        parcel: what.
        private: what the repository must be.
        as_request: leave the pull request open for someone to merge.
        advance: told how many bytes were sent since the last call.

    Raises:
        UserError: the repository is public where private was asked for or the other way round;
            its tag names something else; the Hub refuses.
        GateRefusedError: the Hub does not hold what was sent.
    """
    _settle_visibility(repository, private=private)
    tag = parcel.object_id
    head = repository.commit_of("main")
    remote = repository.files("main") if head else {}
    stale = _stale(repository, parcel, remote)
    whole = head is not None and all_uploaded(parcel.files, remote) and not stale
    tagged = _is_tagged(repository, parcel)
    if whole and head is not None and tagged:
        return Delivery(head, already=True)
    if not whole:
        title = f"gapmend: {parcel.kind} {tag[:12]}"
        number = repository.upload(parcel.files, stale, title, advance)
        request = f"refs/pr/{number}"
        if as_request:
            commit = repository.commit_of(request) or request
            return Delivery(commit, already=False, request=number)
        repository.merge_request(number)
        head = repository.commit_of("main")
    check_uploaded(parcel.files, repository.files("main"), f"main of {repository.repo_id}")
    if not tagged:
        # One that lacks this signature goes first; killed in between, the next call makes it anew.
        repository.untag(tag)
        repository.tag(tag, head or "main")
    return Delivery(head or "main", already=False)


def _settle_visibility(repository: Repository, *, private: bool) -> None:
    """Make the repository if it isn't there, and read back what everybody can see of it."""
    found = repository.is_private()
    if found is None:
        repository.create(private=private)
        found = repository.is_private()
    if found is None:
        raise HubError(f"{repository.repo_id} was made, but the Hub doesn't show it to us")
    if found != private:
        now, asked = ("private", "public") if found else ("public", "private")
        raise HubError(
            f"{repository.repo_id} is {now} on the Hub, and {asked} was asked for",
            expected=f"a repository that is {asked}; nothing was sent",
            fix=f"make it {asked} on its settings page, or push with "
            f"--{'private' if found else 'public'}",
        )


def _stale(
    repository: Repository, parcel: Parcel, remote: Mapping[str, RemoteFile]
) -> tuple[str, ...]:
    """The files of an earlier push on main that this one hasn't; what others put there stays."""
    if RECORD not in remote:
        return ()
    try:
        earlier = set(json.loads(repository.fetch(RECORD, "main").read_text("utf-8"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()  # not ours: it is overwritten, and nothing else is touched
    mine = {file.path for file in parcel.files}
    # A signature is of the files that it lay beside.
    return tuple(sorted(path for path in {*earlier, SIGNATURE} - mine if path in remote))


def _is_tagged(repository: Repository, parcel: Parcel) -> bool:
    """Whether the tag is there, with the signature; its card may have been another.

    Raises:
        GateRefusedError: it names another object.
    """
    if repository.commit_of(parcel.object_id) is None:
        return False
    remote = repository.files(parcel.object_id)
    lasting = [file for file in parcel.files if not _may_change(file)]
    check_uploaded(lasting, remote, f"tag {parcel.object_id[:12]}")
    return all_uploaded([file for file in parcel.files if file.path == SIGNATURE], remote)


def _may_change(file: ParcelFile) -> bool:
    return file.path in {CARD, RECORD, SIGNATURE}
