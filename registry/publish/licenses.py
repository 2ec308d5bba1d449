"""The licence of what was made of several: the strictest, or an error. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# From the freest to the strictest, by the Hub's names. What stands on one line may be mixed: the
# last of them asks for the most.
_FREE = (
    ("cc0-1.0", "pddl", "unlicense", "wtfpl", "0bsd"),
    ("mit-0", "mit", "isc", "zlib", "bsl-1.0", "bsd-2-clause", "bsd-3-clause", "ms-pl",
     "postgresql", "ecl-2.0", "afl-3.0", "apache-2.0"),
    ("cdla-permissive-1.0", "cdla-permissive-2.0", "odc-by", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0",
     "cc-by-4.0"),
    ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
)  # fmt: skip
# Each of these wants its own terms for what is made of it, so that it mixes with free ones alone
# (the first three lines above; what asks for no commerce forbids what they allow).
_OWN_TERMS = (
    "lgpl", "mpl-2.0", "epl-2.0", "gpl", "agpl-3.0", "osl-3.0", "cc-by-sa", "odbl", "eupl",
    "cdla-sharing-1.0", "cc-by-nc-sa", "openrail", "bigscience", "creativeml-openrail-m",
    "bigcode-openrail-m", "llama", "gemma", "deepseek", "apple-", "fair-noncommercial",
)  # fmt: skip
_NO_DERIVATIVES = ("cc-by-nd", "cc-by-nc-nd")
_MIXING = 3  # lines of _FREE that others may take in
_UNKNOWN = frozenset({"", "other", "unknown", "none"})


@dataclass(frozen=True, slots=True)
class _Rank:
    line: int
    place: int
    name: str


def strictest(licences: Mapping[str, str | None]) -> str:
    """Return the licence, by the Hub's name, of what was made of everything in `licences`.

    Args:
        licences: what it was made of (a base, a dataset) -> its licence, as the spec gives it.

    Raises:
        UserError: one is missing or not known, forbids what is made of it, or two can't both be
            kept.
    """
    named = {what: (licence or "").strip().lower() for what, licence in licences.items()}
    for what, licence in named.items():
        _refuse_unusable(what, licence)
    own = {licence: what for what, licence in named.items() if _has_own_terms(licence)}
    free = [_free_rank(licence) for licence in named.values() if licence not in own]
    highest = max(free, key=lambda rank: (rank.line, rank.place), default=None)
    if not own:
        if highest is None:
            raise HubError("no licence is known", expected="that of the base and of the rows")
        return highest.name
    barred = [rank.name for rank in free if rank.line >= _MIXING]
    both = [*own, *barred]
    if len(both) > 1:
        sources = ", ".join(f"{_source(named, name)} ({name})" for name in sorted(both))
        raise HubError(
            f"their licences can't all be kept at once: {sources}",
            expected="licences that allow one for the whole",
            fix="leave one out, or name the licence that you have settled on as hub.license",
        )
    return next(iter(own))


def _refuse_unusable(what: str, licence: str) -> None:
    if licence in _UNKNOWN:
        raise HubError(
            f"the licence of {what} is not known",
            expected="a licence by the Hub's name, as apache-2.0 or cc-by-4.0",
            fix="name it as license in the spec, or the whole's as hub.license",
        )
    if licence.startswith(_NO_DERIVATIVES):
        raise HubError(f"the licence of {what}, {licence}, forbids passing on what is made of it")
    if not _has_own_terms(licence) and not any(licence in line for line in _FREE):
        raise HubError(
            f"gapmend does not know what the licence of {what}, {licence}, asks for",
            fix="name the licence of the whole as hub.license",
        )


def _has_own_terms(licence: str) -> bool:
    return licence.startswith(_OWN_TERMS)


def _free_rank(licence: str) -> _Rank:
    line = next(number for number, names in enumerate(_FREE) if licence in names)
    return _Rank(line, _FREE[line].index(licence), licence)


def _source(named: Mapping[str, str], licence: str) -> str:
    return _joined(what for what, given in named.items() if given == licence)


def _joined(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
