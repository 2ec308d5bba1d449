"""What is kept of a repository: settings, history, refs and discussions, as one JSON file."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from tests.loopback_hub import gitids
from tests.loopback_hub.refusals import bad_request, revision_not_found

Kind = Literal["model", "dataset"]
_FORBIDDEN = {"", ".", "..", ".git", ".cache"}
_REF = re.compile(r"[\w.-][\w./-]{0,200}")


class Token(BaseModel):
    """An access token; the value itself is on no disk, only its SHA-256."""

    digest: str
    name: str
    user: str
    scope: Literal["read", "write"]


class Entry(BaseModel):
    """A file in a tree: its git id, size in bytes, and the SHA-256 under which its bytes lie."""

    oid: str
    size: int
    sha256: str
    lfs: bool


Tree = dict[str, Entry]


class Commit(BaseModel):
    id: str
    parents: list[str]
    tree: str
    title: str
    message: str
    author: str
    date: str


class Tag(BaseModel):
    commit: str
    message: str


class Discussion(BaseModel):
    """A discussion or a pull request (whose commits are on `refs/pr/<num>`)."""

    num: int
    title: str
    author: str
    created: str
    status: Literal["draft", "open", "closed", "merged"]
    pull_request: bool
    head: str | None = None
    merged: str | None = None
    events: list[dict[str, Any]] = Field(default_factory=list)


class Segment(BaseModel):
    """A run of a xorb's chunks: `first` up to `end`, `length` bytes when unpacked."""

    xorb: str
    length: int
    first: int
    end: int


class XetFile(BaseModel):
    sha256: str
    segments: list[Segment]


class Repository(BaseModel):
    """One repository with its whole history; a tree is kept once, by its id."""

    kind: Kind
    name: str
    private: bool
    gated: Literal[False, "auto", "manual"] = False
    created: str
    changed: str
    commits: dict[str, Commit] = Field(default_factory=dict)
    trees: dict[str, Tree] = Field(default_factory=dict)
    branches: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, Tag] = Field(default_factory=dict)
    discussions: list[Discussion] = Field(default_factory=list)
    uploaded: dict[str, int] = Field(default_factory=dict)  # LFS: SHA-256 to bytes
    xet: dict[str, XetFile] = Field(default_factory=dict)  # by xet's own hash of the file

    def xet_hash(self, sha256: str) -> str | None:
        return next((name for name, file in self.xet.items() if file.sha256 == sha256), None)

    @property
    def owner(self) -> str:
        return self.name.partition("/")[0]

    def resolve(self, revision: str) -> Commit:
        """Find the commit of a branch, a tag, `refs/pr/<num>`, `HEAD` or a full id.

        Raises:
            Refused: 404 RevisionNotFound.
        """
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if revision == "HEAD":
            name = "main"
        found: str | None = self.branches.get(name)
        if found is None and name in self.tags:
            found = self.tags[name].commit
        for one in self.discussions:
            if revision == f"refs/pr/{one.num}":
                found = one.head
        if found is None and revision in self.commits:
            found = revision
        if found is None:
            raise revision_not_found(revision)
        return self.commits[found]

    def tree(self, revision: str) -> Tree:
        return self.trees[self.resolve(revision).tree]

    def add_commit(
        self, tree: Tree, parents: list[str], title: str, message: str, author: str
    ) -> Commit:
        """Keep a commit and its tree; no ref moves. Its id is git's own."""
        root = gitids.tree_ids({path: entry.oid for path, entry in tree.items()})[""]
        moment = datetime.now(UTC)
        text = f"{title}\n\n{message}" if message else title
        oid = gitids.commit_id(root, parents, author, int(moment.timestamp()), text)
        self.trees.setdefault(root, dict(tree))
        made = Commit(
            id=oid,
            parents=parents,
            tree=root,
            title=title,
            message=message,
            author=author,
            date=stamp(moment),
        )
        self.commits[oid] = made
        self.changed = made.date
        return made

    def move(self, revision: str, commit: str) -> None:
        """Set a branch or a pull request's ref to a commit.

        Raises:
            Refused: 404 RevisionNotFound where it is neither.
        """
        for one in self.discussions:
            if revision == f"refs/pr/{one.num}":
                one.head = commit
                return
        if revision not in self.branches:
            raise revision_not_found(revision)
        self.branches[revision] = commit

    def history(self, revision: str) -> list[Commit]:
        """Commits from a revision back to the first, along first parents."""
        found, at = [], self.resolve(revision)
        while True:
            found.append(at)
            if not at.parents:
                return found
            at = self.commits[at.parents[0]]

    def discussion(self, num: int) -> Discussion | None:
        return next((one for one in self.discussions if one.num == num), None)


def stamp(moment: datetime | None = None) -> str:
    """Return a time as the Hub writes it, to the millisecond."""
    text = (moment or datetime.now(UTC)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def check_path(path: object) -> str:
    """Return a path that may stand in a repository.

    Raises:
        Refused: 400 for an absolute path, `..`, an empty part, `.git` or a control character.
    """
    if (
        not isinstance(path, str)
        or any(part in _FORBIDDEN for part in path.split("/"))
        or not path.isprintable()
        or "\\" in path
    ):
        raise bad_request(f"Invalid path in repository: {path!r}")
    return path


def check_ref(name: object) -> str:
    """Return a name that a branch or a tag may have.

    Raises:
        Refused: 400 where git would not take it.
    """
    if not isinstance(name, str) or not _REF.fullmatch(name) or ".." in name or name[-1] in "/.":
        raise bad_request(f"Invalid reference name: {name!r}")
    return name
