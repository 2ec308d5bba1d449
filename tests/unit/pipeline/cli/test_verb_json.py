"""A report is JSON by its fields, or as it says itself, however deep it lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli.verb import json_line


@dataclass(frozen=True, slots=True)
class Inner:
    path: Path
    score: float


@dataclass(frozen=True)
class Shaped:
    inner: Inner

    def as_json(self) -> dict[str, Any]:
        return {"only": self.inner}


@dataclass(frozen=True)
class Outer:
    inner: Inner
    shaped: tuple[Shaped, ...]
    by_name: dict[str, Inner]


def test_dataclasses_are_written_by_their_fields_or_their_own_shape() -> None:
    inner = Inner(Path("a/b"), 0.5)
    plain = {"path": "a/b", "score": 0.5}
    written = json.loads(json_line([Outer(inner, (Shaped(inner),), {"x": inner})]))
    assert written == [{"inner": plain, "shaped": [{"only": plain}], "by_name": {"x": plain}}]


def test_what_json_lacks_is_null_in_any_depth() -> None:
    worst = Inner(Path("a"), float("nan"))
    written = json.loads(json_line(Outer(worst, (Shaped(worst),), {"x": worst})))
    plain = {"path": "a", "score": None}
    assert written == {"inner": plain, "shaped": [{"only": plain}], "by_name": {"x": plain}}


def test_a_class_is_no_report() -> None:
    assert json.loads(json_line({"kind": Inner})) == {"kind": str(Inner)}
