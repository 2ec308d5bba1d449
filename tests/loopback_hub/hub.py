"""The Hub's state in a folder: tokens, repositories, bytes by their SHA-256, the log.

Works without a server too: after a server process has ended, `Hub(root)` reads what it kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.loopback_hub import gitids
from tests.loopback_hub.attributes import DEFAULT_ATTRIBUTES, is_large
from tests.loopback_hub.faults import Faults
from tests.loopback_hub.records import Entry, Kind, Repository, Token, Tree, check_path, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that the Hub keeps; `revision` is a commit's id, or `uncommitted`."""

    repo: str
    revision: str
    path: str
    content: bytes


class Hub:
    """Everything under one folder; all of it may be read while the server runs."""

    def __init__(self, root: Path, faults: Faults | None = None) -> None:
        self.root = Path(root)
        self.faults = faults or Faults()
        self.lock = threading.RLock()
        self.crashes: list[Exception] = []  # faults of this Hub, never of a client
        self.endpoint = ""  # set by the server
        self.storage = ""  # the other origin, where large files lie
        self.page_size = 1000  # entries of a tree or commits on one page
        self.xet = True  # whether xet tokens are given out
        for name in ("blobs", "repos", "uploads", "xorbs", "drafts"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.tokens = self._read_tokens()
        self.repositories = {
            (one.kind, one.name): one
            for file in sorted((self.root / "repos").rglob("*.json"))
            for one in [Repository.model_validate_json(file.read_bytes())]
        }
        self.secret = self._secret()

    # ------------------------------------------------------------------ who

    def add_token(
        self,
        value: str,
        user: str = "me",
        scope: Literal["read", "write"] = "write",
        name: str | None = None,
    ) -> None:
        """Let this token in; the log has its name, by default `<user>-<scope>`."""
        made = Token(
            digest=_sha256(value.encode()), name=name or f"{user}-{scope}", user=user, scope=scope
        )
        with self.lock:
            self.tokens[made.digest] = made
            text = json.dumps([one.model_dump() for one in self.tokens.values()])
            self.replace(self.root / "tokens.json", text.encode())

    def token(self, value: str) -> Token | None:
        return self.tokens.get(_sha256(value.encode()))

    # ------------------------------------------------------------------ repositories

    def repository(self, name: str, kind: Kind = "model") -> Repository:
        """Return a repository; what is changed in it is kept after `save`.

        Raises:
            KeyError: when there is none.
        """
        return self.repositories[kind, name]

    def create(self, name: str, kind: Kind = "model", *, private: bool = False) -> Repository:
        """Make a repository with its first commit, which holds `.gitattributes`."""
        made = Repository(kind=kind, name=name, private=private, created=stamp(), changed=stamp())
        entry = self.entry(DEFAULT_ATTRIBUTES, lfs=False)
        first = made.add_commit({".gitattributes": entry}, [], "initial commit", "", made.owner)
        made.branches["main"] = first.id
        with self.lock:
            self.repositories[kind, name] = made
            self.save(made)
        return made

    def save(self, repository: Repository) -> None:
        """Write a repository's record, all of it or nothing."""
        path = self._record(repository)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.replace(path, repository.model_dump_json().encode())

    def delete(self, repository: Repository) -> None:
        with self.lock:
            del self.repositories[repository.kind, repository.name]
            self._record(repository).unlink()

    def add_folder(
        self, name: str, folder: Path, kind: Kind = "model", *, private: bool = False
    ) -> str:
        """Commit a folder's files to `main` from the inside and return the commit's id."""
        with self.lock:
            found = self.repositories.get((kind, name)) or self.create(name, kind, private=private)
            tree: Tree = dict(found.tree("main"))
            for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                content, path = file.read_bytes(), file.relative_to(folder).as_posix()
                lfs = is_large(path, len(content), content[:512], DEFAULT_ATTRIBUTES.decode())
                tree[check_path(path)] = self.entry(content, lfs=lfs)
                if lfs:
                    found.uploaded[tree[path].sha256] = len(content)
            made = found.add_commit(tree, [found.branches["main"]], "Add files", "", found.owner)
            found.branches["main"] = made.id
            self.save(found)
            return made.id

    def head(self, name: str, revision: str = "main", kind: Kind = "model") -> str:
        """Return the id of the commit that a revision is at."""
        return self.repository(name, kind).resolve(revision).id

    def files(self, name: str, revision: str = "main", kind: Kind = "model") -> dict[str, bytes]:
        """Return every file's bytes at a revision."""
        tree = self.repository(name, kind).tree(revision)
        return {path: self.read(entry) for path, entry in sorted(tree.items())}

    # ------------------------------------------------------------------ bytes

    def entry(self, content: bytes, *, lfs: bool) -> Entry:
        """Keep bytes and return what a tree says of them."""
        sha256 = _sha256(content)
        if not self.blob(sha256).exists():
            self.replace(self.blob(sha256), content)
        return self.entry_of(sha256, len(content), lfs=lfs)

    def entry_of(self, sha256: str, size: int, *, lfs: bool) -> Entry:
        kept = gitids.pointer(sha256, size) if lfs else self.blob(sha256).read_bytes()
        return Entry(oid=gitids.blob_id(kept), size=size, sha256=sha256, lfs=lfs)

    def read(self, entry: Entry) -> bytes:
        return self.blob(entry.sha256).read_bytes()

    def blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256

    def signature(self, text: str) -> str:
        """Return what proves that an address or a token was made here."""
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()

    def draft(self) -> Path:
        """Return a new name for a file that is still being received."""
        return self.root / "drafts" / secrets.token_hex(16)

    def replace(self, path: Path, content: bytes) -> None:
        draft = self.draft()
        draft.write_bytes(content)
        draft.replace(path)

    def contents(self) -> Iterator[Stored]:
        """Every byte kept: each file of each commit, then what no commit names.

        A file that stands unchanged in several commits comes with each of them. Large files that
        were uploaded and never committed, and parts of unfinished uploads, are `uncommitted`.
        """
        committed = set()
        for repository in list(self.repositories.values()):
            for commit in list(repository.commits.values()):
                for path, entry in sorted(repository.trees[commit.tree].items()):
                    committed.add(entry.sha256)
                    yield Stored(repository.name, commit.id, path, self.read(entry))
        owners = {
            sha256: repository.name
            for repository in list(self.repositories.values())
            for sha256 in repository.uploaded
        }
        for name in ("blobs", "uploads", "xorbs", "drafts"):
            for file in sorted(path for path in (self.root / name).rglob("*") if path.is_file()):
                if name != "blobs" or file.name not in committed:
                    path = file.relative_to(self.root).as_posix()
                    yield Stored(owners.get(file.name, ""), "uncommitted", path, file.read_bytes())

    def texts(self) -> Iterator[tuple[str, str, str]]:
        """What people read beside the files, as (repo, where, text): messages, titles, comments."""
        for repository in list(self.repositories.values()):
            for commit in list(repository.commits.values()):
                yield repository.name, f"commit {commit.id}", f"{commit.title}\n{commit.message}"
            for name, tag in list(repository.tags.items()):
                yield repository.name, f"tag {name}", f"{name}\n{tag.message}"
            for name in list(repository.branches):
                yield repository.name, f"branch {name}", name
            for one in repository.discussions:
                text = json.dumps([one.title, one.events], ensure_ascii=False)
                yield repository.name, f"discussion {one.num}", text

    # ------------------------------------------------------------------ log

    @property
    def log_file(self) -> Path:
        return self.root / "requests.jsonl"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Every request so far, as the lines of the log.

        `at` (seconds), `origin` (hub or storage), `method`, `path`, `headers` (names in lower
        case), `token` (its name, null without one, `unknown`), `status` (null: no answer), `bytes`
        of the answer's body, and where they apply `fault`, `error`, `broken` (by the client).
        """
        with self.lock:
            text = self.log_file.read_text("utf-8") if self.log_file.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    @property
    def asked(self) -> list[str]:
        """Every request as `METHOD path`, without its query."""
        return [f"{one['method']} {one['path'].partition('?')[0]}" for one in self.requests]

    def log(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False) + "\n"
        with self.lock, self.log_file.open("a", encoding="utf-8") as file:
            file.write(text)

    def _record(self, repository: Repository) -> Path:
        return self.root / "repos" / repository.kind / f"{repository.name}.json"

    def _read_tokens(self) -> dict[str, Token]:
        path = self.root / "tokens.json"
        kept = json.loads(path.read_bytes()) if path.exists() else []
        return {one["digest"]: Token.model_validate(one) for one in kept}

    def _secret(self) -> bytes:
        path = self.root / "secret"
        if not path.exists():
            self.replace(path, secrets.token_hex(32).encode())
        return path.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
