"""The stages that act, one file a stage, thin over evals and registry; and the command line.

`from pipeline import Workspace` is the Python API (docs/guide/notebook.md). It is looked up when
it is asked for: `import pipeline` alone loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace

__all__ = ["Workspace"]


def __getattr__(name: str) -> object:
    """Return the API's class on first use (PEP 562)."""
    if name != "Workspace":
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    from pipeline.api.workspace import Workspace

    return Workspace
