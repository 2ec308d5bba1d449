"""What the Hub says when it says no: a status, a message and the code that clients look at."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault of the server
    """An answer that isn't a success; raised anywhere inside an endpoint."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = HTTPStatus(status)
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.body = {"error": message, **(body or {})}


def repository_not_found(*, anonymous: bool) -> Refused:
    """Absent, or private and not for this token: the two look the same.

    Without a token the Hub says 401, since logging in might help; with one, 404.
    """
    message = "Invalid username or password." if anonymous else "Repository not found"
    return Refused(401 if anonymous else 404, message, "RepoNotFound")


def revision_not_found(revision: str) -> Refused:
    return Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str | None = None) -> Refused:
    """The path isn't at this commit; clients keep that in their caches by the commit's id."""
    named = {"X-Repo-Commit": commit} if commit else {}
    return Refused(404, f"Entry not found: {path}", "EntryNotFound", named)


def bad_request(message: str) -> Refused:
    return Refused(400, message)
