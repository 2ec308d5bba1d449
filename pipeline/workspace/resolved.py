"""A workspace whose datasets are resolved: what a run works on, found out once and handed down."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - the dataclass's own
from dataclasses import dataclass, fields
from typing import Self

from pipeline.workspace.workspace import OpenWorkspace


@dataclass(frozen=True)
class Resolved(OpenWorkspace):
    """A workspace, and the version of each dataset that a run works on.

    `ingest.resolve` makes it, at the top of the loop or of a verb; whoever reads rows takes one and
    asks for nothing more. Its bases are in `models`, each identified once, with its tokenizer and
    template.

    Attributes:
        versions: dataset -> id of its version.
    """

    versions: Mapping[str, str]

    @classmethod
    def of(cls, ws: OpenWorkspace, versions: Mapping[str, str]) -> Self:
        """Return the workspace with these versions."""
        known = {field.name: getattr(ws, field.name) for field in fields(OpenWorkspace)}
        return cls(**known, versions=versions)
