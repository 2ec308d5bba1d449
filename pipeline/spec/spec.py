"""The spec: `gapmend.yaml`, validated once into frozen models; every error names its line.

The parts are owned by the layers that act on them (bases and datasets by registry, capabilities
by evals, training by pipeline/training); here they are composed and checked against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from evals.engine.backend import BackendName
from evals.tasks.capability import CapabilitySpec, GuardSpec, labels_of
from pipeline.spec.errors import InvalidSpecError, Problem, problems_of, unknown_name
from pipeline.spec.train import TrainSpec
from pipeline.spec.witnesses import also_measured, witnesses_of
from pipeline.spec.yaml_lines import parse
from registry.datasets.spec import DatasetSpec
from registry.errors import SpecError, UserError
from registry.merge.spec import MergeSpec
from registry.models.base import BaseSpec
from registry.store.paths import expand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path as Folder

    from pipeline.spec.yaml_lines import Path, YamlDocument

Subject = TypeVar("Subject", CapabilitySpec, GuardSpec)
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]


class MendSpec(BaseModel):
    """How often what was lost is filled in again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(3, ge=0, le=20, description="Rounds of mending, at most.")


class EvalsSpec(BaseModel):
    """How scores are computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: BackendName = Field(
        "gapmend",
        description="gapmend's own engine, or vllm: on a GPU, where you have installed it.",
    )


class HubSpec(BaseModel):
    """Where the promoted adapter is pushed to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str = Field(
        pattern=r"^[\w.-]+/[\w.-]+$", description="The repository, as owner/name on the Hub."
    )
    private: bool = Field(default=True, description="Only its owner sees it.")
    license: str | None = Field(
        None,
        description="What is pushed is under this licence; by default the strictest of base and "
        "rows, where one holds for all.",
    )


class Spec(BaseModel):
    """One workspace: what there is, what is wanted, what must not be lost, how to train."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="gapmend.yaml")

    bases: dict[Name, BaseSpec] = Field(min_length=1, description="Pretrained models, by name.")
    datasets: dict[Name, DatasetSpec] = Field(min_length=1, description="Rows, by name.")
    capabilities: dict[Name, CapabilitySpec] = Field(
        min_length=1, description="What the model should do, each with a goal."
    )
    guards: dict[Name, GuardSpec] = Field(
        default_factory=dict, description="What it can do and must not lose."
    )
    train: TrainSpec = Field(description="The base, the pool of rows, and how it is trained.")
    mend: MendSpec = Field(MendSpec(), description="How losses are mended.")
    merge: MergeSpec = Field(MergeSpec(), description="How several adapters become one.")
    evals: EvalsSpec = Field(EvalsSpec(), description="How scores are computed.")
    hub: HubSpec | None = Field(None, description="Where the adapter is pushed to, if anywhere.")

    @property
    def witnesses(self) -> frozenset[str]:
        """The guards of which nothing is trained on."""
        return witnesses_of(self.guards, self.capabilities)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of gapmend.yaml, for editors."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **cls.model_json_schema(),
        }


def load_spec(path: Folder) -> Spec:
    """Read and validate a spec; paths in it are relative to its folder.

    Variables in a base's folder are replaced, and a file of labels by the labels in it: what
    the spec says then depends on no other file but data and models.

    Raises:
        UserError: the file can't be read or is not YAML.
        InvalidSpecError: it is not valid; one line for each problem, all of them.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"invalid UTF-8 at byte {error.start}", where=str(path)) from error
    except OSError as error:
        raise SpecError(f"can't be read: {error.strerror}", where=str(path)) from error
    document, repeated = parse(text, path.name)
    problems: list[Problem] = [
        Problem(r.path, f"this key is repeated (first in line {r.first})") for r in repeated
    ]
    spec = _validated(document, problems)
    if spec is not None:
        problems += _references(spec)
        spec = _settled(spec, path.parent, problems)
    if spec is None or problems:
        raise InvalidSpecError([problem.record(document, path.name) for problem in problems])
    return spec


def _validated(document: YamlDocument, problems: list[Problem]) -> Spec | None:
    if not isinstance(document.value, dict):
        given = "the file is empty" if document.value is None else "not a mapping of keys"
        problems.append(Problem((), given, f"keys such as {', '.join(Spec.model_fields)}"))
        return None
    try:
        return Spec.model_validate(document.value)
    except ValidationError as error:
        problems += problems_of(error, document, Spec)
        return None


def _references(spec: Spec) -> Iterator[Problem]:
    """Yield each name that refers to nothing in the spec."""
    for section, subjects in (("capabilities", spec.capabilities), ("guards", spec.guards)):
        for name, subject in subjects.items():
            if subject.data is not None and subject.data not in spec.datasets:
                yield unknown_name((section, name, "data"), subject.data, spec.datasets, "dataset")
    if spec.train.base not in spec.bases:
        yield unknown_name(("train", "base"), spec.train.base, spec.bases, "base")
    for index, name in enumerate(spec.train.pool):
        if name not in spec.datasets:
            yield unknown_name(("train", "pool", index), name, spec.datasets, "dataset")
    for name in spec.guards.keys() & spec.capabilities.keys():
        yield Problem(("guards", name), f"'{name}' is a capability too", "another name")
    for name, guard in spec.guards.items():
        others = also_measured(name, spec.guards, spec.capabilities)
        if guard.replay is False and others:
            yield Problem(
                ("guards", name, "replay"),
                f"'{name}' is to be a witness, and rows of its dataset '{guard.data}' may be "
                f"trained on for {', '.join(others)}",
                "a dataset of its own",
            )


def _settled(spec: Spec, root: Folder, problems: list[Problem]) -> Spec:
    """Return the spec with variables and label files replaced; add what can't be to `problems`."""
    bases = {
        name: base.model_copy(
            update={"model": _expanded(base.model, ("bases", name, "model"), problems, hub=True)}
        )
        for name, base in spec.bases.items()
    }
    for name, dataset in spec.datasets.items():
        at = ("datasets", name, "path")
        if isinstance(dataset.path, str):
            _expanded(dataset.path, at, problems)  # kept as written: so it is recorded
        elif dataset.path is not None:
            for split, text in dataset.path.items():
                _expanded(text, (*at, split), problems)
    capabilities = {
        name: _labelled(subject, root, ("capabilities", name, "labels"), problems)
        for name, subject in spec.capabilities.items()
    }
    guards = {
        name: _labelled(subject, root, ("guards", name, "labels"), problems)
        for name, subject in spec.guards.items()
    }
    return spec.model_copy(update={"bases": bases, "capabilities": capabilities, "guards": guards})


def _expanded(text: str, at: Path, problems: list[Problem], *, hub: bool = False) -> str:
    try:
        return expand(text, hub=hub)
    except UserError as error:
        problems.append(Problem(at, error.what, error.expected, error.fix))
        return text


def _labelled(subject: Subject, root: Folder, at: Path, problems: list[Problem]) -> Subject:
    """Return a capability or guard with the labels that its file holds."""
    if not isinstance(subject.labels, str) or subject.labels_column is not None:
        return subject
    file = _expanded(subject.labels, at, problems)
    if file == subject.labels and "$" in file:
        return subject
    try:
        labels = labels_of(subject.model_copy(update={"labels": file}), (), root)
    except UserError as error:
        problems.append(Problem(at, f"{subject.labels}: {error.what}", error.expected, error.fix))
        return subject
    return subject.model_copy(update={"labels": labels})
