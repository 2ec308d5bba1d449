"""The Hugging Face Hub, asked so that a bad connection is survived and errors are one line.

Everything goes through the Hub's own client. What may be repeated is repeated, with growing
pauses, and as long as the Hub asks for; what the Hub refuses is a `UserError` without the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from registry.errors import GateRefusedError, HubError
from registry.hub.errors import MovedError, call_hub
from registry.hub.transfer import together
from registry.hub.whole import whole_snapshot
from registry.store.held import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from huggingface_hub import HfApi


RepoType = Literal["model", "dataset"]

_T = TypeVar("_T")
_LOOKS = 3  # times that main may move while a pull request is made


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the Hub lists it: `sha256` for large ones, git's `blob` id for all."""

    size: int
    blob: str
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """One repository on the Hub; every call may be repeated without harm."""

    repo_id: str
    repo_type: RepoType = "model"

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # who calls has one; in a log these are a page
        return HfApi(library_name="gapmend")

    def is_private(self) -> bool | None:
        """Whether it is private now; None where there is no such repository (for us)."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self._ask(lambda: self._api.repo_info(self.repo_id, repo_type=self.repo_type))
        except RepositoryNotFoundError:
            return None
        return bool(info.private)

    def create(self, *, private: bool) -> None:
        """Make it, or find it made; who asked for private has to look whether it is."""
        self._ask(
            lambda: self._api.create_repo(
                self.repo_id, private=private, repo_type=self.repo_type, exist_ok=True
            )
        )

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch, tag or pull request is at; None where there is none."""
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            info = self._ask(
                lambda: self._api.repo_info(
                    self.repo_id, revision=revision, repo_type=self.repo_type
                )
            )
        except RevisionNotFoundError:
            return None
        return str(info.sha)

    def files(self, revision: str) -> dict[str, RemoteFile]:
        """Path -> file at a revision."""
        from huggingface_hub.hf_api import RepoFile

        entries = self._ask(
            lambda: list(
                self._api.list_repo_tree(
                    self.repo_id, recursive=True, revision=revision, repo_type=self.repo_type
                )
            )
        )
        return {
            entry.path: RemoteFile(
                entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None
            )
            for entry in entries
            if isinstance(entry, RepoFile)
        }

    def fetch(self, path: str, revision: str) -> Path:
        """A file at a revision, in the Hub's cache."""
        return Path(
            self._ask(
                lambda: self._api.hf_hub_download(
                    self.repo_id, path, revision=revision, repo_type=self.repo_type
                )
            )
        )

    def download(
        self,
        revision: str,
        patterns: Sequence[str],
        told: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> Path:
        """Fetch the files that match into the Hub's cache; returns the snapshot's folder.

        `told` is told how many bytes are there, of how many.
        """
        from registry.hub.transfer import bar_class

        def fetch() -> Path:
            return Path(
                self._ask(
                    lambda: self._api.snapshot_download(
                        self.repo_id,
                        revision=revision,
                        repo_type=self.repo_type,
                        allow_patterns=list(patterns),
                        tqdm_class=bar_class(told),
                    )
                )
            )

        return whole_snapshot(fetch, patterns, self.repo_id, digest_of)

    def upload(
        self,
        files: Sequence[ParcelFile],
        stale: Sequence[str],
        title: str,
        advance: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Put files into a pull request on main as it is now; returns its number.

        A request that was made, though its answer was lost, is found and not made again. Large
        files go one after the other, and `advance` is told their bytes.

        Raises:
            UserError: main moved again and again while it was made.
            GateRefusedError: the Hub does not hold what was sent, or more.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        for look in range(_LOOKS):
            head = self.commit_of("main")
            main = self.files("main") if head else {}
            added = [CommitOperationAdd(f.path, _content(f)) for f in files]
            for some, size in together(added, [one.size for one in files]):
                self._ask(
                    lambda some=some: self._api.preupload_lfs_files(  # type: ignore[misc]
                        self.repo_id, some, repo_type=self.repo_type, free_memory=False
                    )
                )
                if look == 0:  # what was sent is there
                    advance(size)
            operations = [*added, *(CommitOperationDelete(path) for path in stale)]

            def make(
                operations: Sequence[Any] = operations,
                head: str | None = head,
                main: Mapping[str, RemoteFile] = main,
            ) -> int | None:
                if (made := self.open_request(files, stale, main)) is not None:
                    return made
                return self._api.create_commit(
                    self.repo_id,
                    list(operations),
                    commit_message=title,
                    repo_type=self.repo_type,
                    create_pr=True,
                    parent_commit=head,
                ).pr_num

            try:
                made = self._ask(make)
            except MovedError:
                continue
            if made is not None:
                request = f"refs/pr/{made}"
                check_exact(files, stale, main, self.files(request), f"{self.repo_id} {request}")
                return made
        message = f"main of {self.repo_id} moved {_LOOKS} times while the pull request was made"
        raise HubError(message, fix="call again when nobody else is writing to it")

    def open_request(
        self,
        files: Sequence[ParcelFile],
        stale: Sequence[str],
        main: Mapping[str, RemoteFile],
    ) -> int | None:
        """The number of an open pull request that makes of main just what is wanted.

        Anybody may open one on a public repository: one that changes anything else is not ours.
        """
        refs = self._ask(
            lambda: self._api.list_repo_refs(
                self.repo_id, repo_type=self.repo_type, include_pull_requests=True
            )
        )
        for ref in refs.pull_requests or ():
            number = int(ref.ref.rpartition("/")[2])
            odd = first_difference(files, stale, main, self.files(ref.ref))
            if odd is None and self._is_open(number):
                return number
        return None

    def merge_request(self, number: int) -> None:
        """Move main to what a pull request holds, unless that was done."""

        def merge() -> None:
            if self._is_open(number):
                self._api.merge_pull_request(self.repo_id, number, repo_type=self.repo_type)

        self._ask(merge)

    def tag(self, name: str, commit: str) -> None:
        """Name a commit; a tag that is there stays where it is."""
        self._ask(
            lambda: self._api.create_tag(
                self.repo_id, tag=name, revision=commit, repo_type=self.repo_type, exist_ok=True
            )
        )

    def untag(self, name: str) -> None:
        """Take a name off its commit, if it has one."""
        if self.commit_of(name) is not None:
            self._ask(
                lambda: self._api.delete_tag(self.repo_id, tag=name, repo_type=self.repo_type)
            )

    def url(self, revision: str) -> str:
        """Where people find a revision."""
        kind = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self._api.endpoint}/{kind}{self.repo_id}/tree/{revision}"

    def _is_open(self, number: int) -> bool:
        details = self._ask(
            lambda: self._api.get_discussion_details(self.repo_id, number, repo_type=self.repo_type)
        )
        return str(details.status) in {"open", "draft"}

    def _ask(self, call: Callable[[], _T]) -> _T:
        return call_hub(call, self.repo_id)


def all_uploaded(files: Sequence[ParcelFile], remote: Mapping[str, RemoteFile]) -> bool:
    """Whether the Hub has all these files, byte for byte, by its own hashes. Pure."""
    return not differing_paths(files, remote)


def first_difference(
    files: Sequence[ParcelFile],
    stale: Sequence[str],
    main: Mapping[str, RemoteFile],
    found: Mapping[str, RemoteFile],
) -> str | None:
    """Return a path at which a tree isn't main with `files` put in and `stale` taken out. Pure."""
    mine = {file.path for file in files}
    others = {path: one for path, one in main.items() if path not in mine and path not in stale}
    if wrong := differing_paths(files, found):
        return wrong[0]
    rest = {path: one for path, one in found.items() if path not in mine}
    odd = [path for path in rest.keys() | others.keys() if rest.get(path) != others.get(path)]
    return min(odd, default=None)


def check_exact(
    files: Sequence[ParcelFile],
    stale: Sequence[str],
    main: Mapping[str, RemoteFile],
    found: Mapping[str, RemoteFile],
    where: str,
) -> None:
    """Raise GateRefusedError unless a pull request holds what was sent, and nothing else."""
    if (path := first_difference(files, stale, main, found)) is not None:
        raise GateRefusedError(f"{where} does not hold what was sent, or more: {path}")


def differing_paths(files: Sequence[ParcelFile], remote: Mapping[str, RemoteFile]) -> list[str]:
    """Return the paths whose bytes the Hub doesn't have. Pure."""
    return [file.path for file in files if not _equal(file, remote.get(file.path))]


def check_uploaded(
    files: Sequence[ParcelFile], remote: Mapping[str, RemoteFile], where: str
) -> None:
    """Raise GateRefusedError unless the Hub has exactly these bytes."""
    if wrong := differing_paths(files, remote):
        raise GateRefusedError(f"{where} does not hold what was pushed: {', '.join(wrong[:3])}")


def _equal(file: ParcelFile, remote: RemoteFile | None) -> bool:
    if remote is None or remote.size != file.size:
        return False
    return remote.sha256 == file.sha256 if remote.sha256 else remote.blob == file.blob


def _content(file: ParcelFile) -> str | bytes:
    return file.content if isinstance(file.content, bytes) else str(file.content)


@dataclass(frozen=True)
class ParcelFile:
    """One file of a push.

    Attributes:
        path: in the repository.
        content: a file, or its bytes.
        size: in bytes.
        sha256: as the Hub shows it for large files.
        blob: git's SHA-1 of it, as the Hub shows it for small ones.
    """

    path: str
    content: Path | bytes
    size: int
    sha256: str
    blob: str
