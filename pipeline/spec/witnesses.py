"""Witnesses: the guards of which nothing is ever trained on, so that they tell of all the rest.

A guard whose rows are replayed is kept by them, and understates what was lost where nobody looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evals.tasks.capability import CapabilitySpec, GuardSpec

_ENOUGH_GUARDS = 3
"""Of so many guards with data, one is a witness where the spec names none."""


def witnesses_of(
    guards: Mapping[str, GuardSpec], capabilities: Mapping[str, CapabilitySpec]
) -> frozenset[str]:
    """Return the guards that are witnesses.

    They are those that say `replay: false`. If none does and three or more have data, it is the
    last one in the spec's order that doesn't say `replay: true` and whose dataset nothing else
    measures.
    """
    named = frozenset(name for name, guard in guards.items() if guard.replay is False)
    with_data = [name for name, guard in guards.items() if guard.data is not None]
    if named or len(with_data) < _ENOUGH_GUARDS:
        return named
    free = [
        name
        for name in with_data
        if guards[name].replay is None and not also_measured(name, guards, capabilities)
    ]
    return frozenset(free[-1:])


def also_measured(
    guard: str, guards: Mapping[str, GuardSpec], capabilities: Mapping[str, CapabilitySpec]
) -> tuple[str, ...]:
    """Return what else measures a guard's dataset and may so have its rows trained on."""
    data = guards[guard].data
    if data is None:
        return ()
    others = [name for name, one in capabilities.items() if one.data == data]
    return (
        *others,
        *(n for n, o in guards.items() if n != guard and o.data == data and o.replay is not False),
    )
