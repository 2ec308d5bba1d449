"""Amounts as people write them: bytes, and what else is counted."""

from __future__ import annotations

BYTES = "bytes"
_UNITS = ("B", "kB", "MB", "GB", "TB")
_THOUSAND = 1000
_FEW = 10  # below, a decimal says something


def in_bytes(count: float) -> str:
    """Return a number of bytes as people write it: 12.3 MB."""
    for unit in _UNITS:
        if abs(count) < _THOUSAND or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _THOUSAND
    return ""


def counted(done: int, total: int | None, unit: str = "") -> str:
    """Return what is done of how many: `1,200 of 5,000 rows`, `1.2 MB of 4.0 MB`, `1,200`."""
    if unit == BYTES:
        return f"{in_bytes(done)} of {in_bytes(total)}" if total else in_bytes(done)
    of = f"{done:,} of {total:,}" if total else f"{done:,}"
    return f"{of} {unit}" if unit else of


def pace(rate: float, unit: str) -> str:
    """Return how many are done in a second: `3.4 MB/s`, `1,200 rows/s`, `0.3 files/s`."""
    if unit == BYTES:
        return f"{in_bytes(rate)}/s"
    return f"{rate:,.0f} {unit}/s" if rate >= _FEW else f"{rate:.1f} {unit}/s"
