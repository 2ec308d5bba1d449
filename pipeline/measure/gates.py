"""The gates of mending and promotion: findings in, verdict out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SCALES = (1.0, 0.85, 0.7, 0.5)
"""The scales that an adapter is tried at, before rows are moved and it is trained again."""


class ClosingGate(Protocol):
    """What a gate asks of a tuned capability's finding."""

    @property
    def verdict(self) -> str: ...  # noqa: D102 - `closed`, `open` or `inconclusive`


class KeepingGate(Protocol):
    """What a gate asks of a guard's finding."""

    @property
    def verdict(self) -> str: ...  # noqa: D102 - `kept`, `forgotten` or `inconclusive`
    @property
    def accepted(self) -> bool: ...  # noqa: D102 - the spec takes a loss
    @property
    def witness(self) -> bool: ...  # noqa: D102 - nothing of it is trained on


@dataclass(frozen=True)
class Gate:
    """One condition of promote, and whether the figures satisfy it."""

    name: str
    passed: bool
    reason: str


def holds(closing: Iterable[ClosingGate], keeping: Iterable[KeepingGate]) -> bool:
    """Tell whether every gap is closed and everything else kept, or its loss accepted."""
    return all(c.verdict == "closed" for c in closing) and all(is_kept(k) for k in keeping)


def is_kept(finding: KeepingGate) -> bool:
    """Tell whether what could be done before still can, or its loss is accepted in the spec."""
    return finding.verdict == "kept" or finding.accepted


def first_scale(scales: Sequence[float], fits: Callable[[float], bool]) -> float | None:
    """Return the largest of `scales` at which everything holds, or None; asks no further."""
    return next((scale for scale in sorted(scales, reverse=True) if fits(scale)), None)


def gates(
    closing: Mapping[str, ClosingGate],
    keeping: Mapping[str, KeepingGate],
    split: str = "test",
    settling: Mapping[str, str] | None = None,
) -> tuple[Gate, ...]:
    """Return promote's gates: every tuned gap closed, everything else kept or accepted.

    Args:
        closing: tuned capability -> its finding.
        keeping: guard, or capability that was not tuned -> its finding.
        split: what was measured, for the reasons.
        settling: of what is inconclusive, what would settle it.
    """
    on = f"on {split}"
    at = {name: f"{on} ({how})" for name, how in (settling or {}).items()}
    found = [_closed(name, one.verdict, at.get(name, on)) for name, one in closing.items()]
    found += [_kept(name, one, at.get(name, on)) for name, one in keeping.items()]
    if not closing:
        found.append(Gate("tuned", passed=False, reason="the adapter was tuned for no capability"))
    return tuple(found)


def refusals(found: Iterable[Gate]) -> tuple[str, ...]:
    """Return the reasons of the gates that say no."""
    return tuple(gate.reason for gate in found if not gate.passed)


def _closed(name: str, verdict: str, where: str) -> Gate:
    reason = f"{name}: the gap is {verdict} {where}"
    return Gate(f"closed:{name}", passed=verdict == "closed", reason=reason)


def _kept(name: str, finding: KeepingGate, where: str) -> Gate:
    what = f"{name}, a witness," if finding.witness else name
    reason = f"{what} is {finding.verdict} {where}"
    if finding.accepted and finding.verdict != "kept":
        reason += ", which the spec accepts"
    return Gate(f"kept:{name}", passed=is_kept(finding), reason=reason)
