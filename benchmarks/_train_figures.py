"""One comparison of the training benchmark, as a line of its table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HEAD = f"{'metric':<38}{'ours':>9}{'peer':>9}{'ratio':>8}{'target':>8}"


@dataclass(frozen=True)
class Figure:
    """One comparison.

    Attributes:
        metric: its name, that of the target at its end where there is one.
        ours: what we reach.
        peer: what it is compared with; None if that was not measured.
        target: what `ratio` must be; None if nothing is asked of it.
        at_most: the target is an upper limit.
        note: what one has to know to read it.
    """

    metric: str
    ours: float | None
    peer: float | None
    target: float | None
    at_most: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return self.ours / self.peer if self.ours is not None and self.peer else None

    @property
    def holds(self) -> bool | None:
        """Whether the target is reached: None without one, False where nothing was measured."""
        if self.target is None:
            return None
        if self.ratio is None:
            return False
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def line(self) -> str:
        """Return it as a line of the table, with its note below."""
        sides = "".join(f"{'-' if x is None else f'{x:.0f}':>9}" for x in (self.ours, self.peer))
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        target = "-" if self.target is None else f"{'<=' if self.at_most else ''}{self.target:g}"
        said = {True: "holds", False: "missed", None: ""}[self.holds]
        if self.holds is False and self.ratio is None:
            said = "not measured"
        note = f"\n  {self.note}" if self.note else ""
        return f"{self.metric:<38}{sides}{ratio:>8}{target:>8}  {said}{note}"

    def as_json(self) -> dict[str, Any]:
        """Return it with what is computed."""
        return {**vars(self), "ratio": self.ratio, "holds": self.holds}
