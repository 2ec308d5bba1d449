"""What happens in discussions and pull requests, as clients read it."""

from __future__ import annotations

from typing import Any

from tests.loopback_hub.records import Discussion, Repository, stamp


def open_request(
    found: Repository, title: str, text: str, author: str, head: str, status: str
) -> Discussion:
    """Add a pull request whose ref is at a commit."""
    opened = Discussion(
        num=len(found.discussions) + 1,
        title=title,
        author=author,
        created=stamp(),
        status="draft" if status == "draft" else "open",
        pull_request=True,
        head=head,
    )
    opened.events.append(comment_event(author, text))
    found.discussions.append(opened)
    return opened


def comment_event(author: str, text: str) -> dict[str, Any]:
    data = {"edited": False, "hidden": False, "latest": {"raw": text}}
    return event("comment", author, data)


def event(kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
    made = stamp()
    named = {"id": f"{kind}-{made}", "type": kind, "createdAt": made, "author": {"name": author}}
    return {**named, "data": data}
