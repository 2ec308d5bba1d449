"""Moving an alias of an adapter: to what it may point at, if it still points where it was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.workspace.store import CHAMPION, adapter_named
from registry.errors import GateRefusedError, UserError

if TYPE_CHECKING:
    from pipeline.workspace.store import WorkspaceStore

NO_TARGET = "none"
"""What an alias is expected to point at that was never set."""


@dataclass(frozen=True)
class AliasReport:
    """An alias that was moved."""

    alias: str
    target: str
    previous: str | None
    reason: str


def tag(
    ws: WorkspaceStore,
    name: str,
    alias: str,
    *,
    expect: str | None = None,
    reason: str = "",
    force: bool = False,
) -> AliasReport:
    """Point an alias at an adapter.

    Args:
        ws: what the workspace keeps.
        name: the adapter's id, a prefix or an alias.
        alias: the name that moves. `champion` moves to what promote has let through.
        expect: what it must point at now (id, prefix, alias, or `none`); by default what it is
            found at, so that a move by someone else in between is noticed.
        reason: why, for the history.
        force: move `champion` although no gate said yes; wants a reason.

    Raises:
        GateRefusedError: `champion`, and promote has not let this adapter through.
        UserError: no such adapter, no reason for force, or the alias can't have this name.
        StoreError: the alias points at something else than `expect`.
    """
    from registry.models.adapters import move_alias

    target = adapter_named(ws, name)
    now = ws.catalog.alias(alias)
    expected = now if expect is None else _expected(ws, expect)
    if force and not reason.strip():
        raise UserError("--force wants a reason", fix='give it: --reason "…"; it is recorded')
    if alias == CHAMPION and not force and not _was_promoted(ws, target):
        raise GateRefusedError(
            f"champion moves to an adapter that promote has let through, not to {target[:12]}. "
            f"Run gapmend promote --adapter {target[:12]}, or use --force with a --reason"
        )
    said = f"forced: {reason}" if force else reason
    move_alias(ws.store, ws.catalog, alias, target, expect=expected, reason=said)
    return AliasReport(alias, target, expected, said)


def _expected(ws: WorkspaceStore, expect: str) -> str | None:
    return None if expect == NO_TARGET else adapter_named(ws, expect)


def _was_promoted(ws: WorkspaceStore, adapter_id: str) -> bool:
    from registry.store.kinds import PromotionMeta

    return bool(ws.catalog.committed(PromotionMeta, adapter_id=adapter_id, promoted=True))
