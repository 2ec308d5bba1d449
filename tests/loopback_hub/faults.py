"""What goes wrong on purpose: by rule, and at random from a seed."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass, field
from typing import Literal, get_args

FaultKind = Literal["status", "drop", "cut", "lost", "slow", "flip"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    `status` answers with that status and does nothing else; `drop` resets the connection in the
    middle of the request, nothing is done; `cut` does it and breaks off in the middle of the
    answer; `lost` does it and never answers; `slow` waits `seconds` first; `flip` has another bit
    in the middle of the answer.
    """

    kind: FaultKind
    status: int = 503
    seconds: float = 0.2
    retry_after: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.status}" if self.kind == "status" else self.kind


@dataclass(slots=True)
class Rule:
    """The fault for the next `count` requests that match, after `skip` that are let through.

    `path` is a regular expression searched in the request's path, with its query.
    """

    fault: Fault
    method: str = ".*"
    path: str = ""
    count: int = 1
    skip: int = 0

    def hits(self, method: str, path: str) -> bool:
        if self.count == 0 or not re.fullmatch(self.method, method):
            return False
        if not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.count -= 1
        return True


RANDOM = (
    Fault("status", 500),
    Fault("status", 502),
    Fault("status", 503),
    Fault("status", 429, retry_after=0),
    Fault("drop"),
    Fault("cut"),
    Fault("lost"),
    Fault("slow", seconds=0.05),
)


@dataclass(slots=True)
class Faults:
    """Rules first, in order; then one of `kinds` with `probability`, drawn from `seed`.

    The draws are the same for the same seed; which request gets which is up to the client, which
    may ask from several threads.
    """

    rules: list[Rule] = field(default_factory=list)
    probability: float = 0.0
    seed: int = 0
    kinds: tuple[Fault, ...] = RANDOM
    _draws: random.Random = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._draws = random.Random(self.seed)

    def add(
        self,
        kind: FaultKind,
        method: str = ".*",
        path: str = "",
        *,
        count: int = 1,
        skip: int = 0,
        status: int = 503,
        seconds: float = 0.2,
        retry_after: int | None = None,
    ) -> Rule:
        """Make a rule and return it; `rule.count` says how often it is still to come."""
        if kind not in get_args(FaultKind):
            raise ValueError(kind)
        rule = Rule(Fault(kind, status, seconds, retry_after), method, path, count, skip)
        with self._lock:
            self.rules.append(rule)
        return rule

    def draw(self, method: str, path: str) -> Fault | None:
        """Return what goes wrong with this request, if anything."""
        with self._lock:
            for rule in self.rules:
                if rule.hits(method, path):
                    return rule.fault
            if self.probability and self._draws.random() < self.probability:
                return self._draws.choice(self.kinds)
        return None
