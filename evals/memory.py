"""Telling "no memory" from other failures: torch says it in several ways."""

from __future__ import annotations

# How CUDA's and the CPU's allocators put it where they raise a plain RuntimeError.
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory")


def out_of_memory(error: Exception) -> bool:
    """Whether a batch failed for want of memory, so that a smaller one may do."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS)
