"""Subjects of measurement: the capabilities and guards of a spec, by their names."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evals.tasks.capability import CapabilitySpec, GuardSpec
    from pipeline.spec.spec import Spec

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Subject:
    """What is measured: a capability or a guard of the spec, by its name."""

    name: str
    role: Literal["capability", "guard"]
    spec: CapabilitySpec | GuardSpec

    @property
    def section(self) -> str:
        """The key of the spec that it is under."""
        return "capabilities" if self.role == "capability" else "guards"


def subjects(spec: Spec) -> tuple[Subject, ...]:
    """Return every capability and then every guard of the spec, in its order."""
    capabilities = (Subject(n, "capability", s) for n, s in spec.capabilities.items())
    guards = (Subject(n, "guard", s) for n, s in spec.guards.items())
    return (*capabilities, *guards)


def subject(spec: Spec, name: str) -> Subject:
    """Return the capability or guard called `name`.

    Raises:
        UserError: the spec has none of that name.
    """
    for candidate in subjects(spec):
        if candidate.name == name:
            return candidate
    known = ", ".join(s.name for s in subjects(spec))
    raise UserError(f"no capability or guard is called '{name}'", expected=f"one of {known}")


def measured_datasets(spec: Spec) -> tuple[str, ...]:
    """Return the datasets that a capability or guard measures, each once, in their order."""
    named = (what.spec.data for what in subjects(spec))
    return tuple(dict.fromkeys(name for name in named if name is not None))


@contextmanager
def errors_at(what: Subject) -> Iterator[None]:
    """Name `what` in every error that names no place of its own."""
    try:
        yield
    except UserError as error:
        error.place(f"gapmend.yaml: {what.section}.{what.name}")
        raise
