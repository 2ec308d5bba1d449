"""Every kind of object that a store has: what the `meta` of its manifest says, one model each.

They stand together because the store's SQL views (`registry/catalog/view_files/`) read all of
them, and so does `gapmend fsck`; what a figure in them means is said where it is made. Two kinds
more have nothing but `created_at`: `uids`, a reservation of row numbers, and any that a later
gapmend writes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from registry.store.manifest import Listed, Meta, Number

Json = dict[str, Any]
"""A JSON object whose keys are not this file's matter: a finding, the inputs of a stage."""


class Leaks(BaseModel):
    """Rows of a version that stood in several splits: exactly, or as near-duplicates."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    exact: int
    near: int


class Output(BaseModel):
    """An object that a run made, and the part that it plays."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    role: str
    kind: str
    id: str


class PartRows(BaseModel):
    """How many rows of a selection are for one capability or guard, for one reason."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    capability: str
    reason: str
    rows: int
    score: Number | None = None


# ------------------------------------------------------------------------------------- datasets


class RowsMeta(Meta):
    """Contents of rows, shared by versions."""

    of_kind: ClassVar[str] = "rows"

    rows: int


class VersionMeta(Meta):
    """A dataset version; counts are of rows, `records` of what the files hold."""

    of_kind: ClassVar[str] = "dataset_version"

    name: str
    rows: int
    records: int = 0
    rejects: int = 0
    splits: dict[str, int] = Field(default_factory=dict)
    clusters: int = 0
    duplicates: int = 0
    leaks: Leaks = Leaks(exact=0, near=0)
    license: str | None = None


class PlacesMeta(Meta):
    """What another dataset, or other files, with the same rows say of a version."""

    of_kind: ClassVar[str] = "places"

    name: str
    records: int = 0
    rejects: int = 0
    duplicates: int = 0
    leaks: Leaks = Leaks(exact=0, near=0)


class ErasureMeta(Meta):
    """An erasure: `redacted` has the rows that each object lost."""

    of_kind: ClassVar[str] = "erasure"

    reason: str
    rows: int
    began: str
    redacted: dict[str, int]


class SelectionMeta(Meta):
    """The rows that an adapter is trained on; `budget` and `replay` are by capability or guard.

    `set_aside` counts the rows that were kept out by why, `short_of` says what rows are missing,
    `deciding_tokens` what the base read and wrote to decide, `own_answers` what became of the rows
    for each gap where the base's own right answers were wanted: what -> rows.
    """

    of_kind: ClassVar[str] = "selection"

    base: str
    round: int
    rows: int
    replay_rows: int
    budget: dict[str, int]
    replay: dict[str, int] = Field(default_factory=dict)
    parts: Listed[PartRows] = ()
    near_duplicates: int = 0
    leaks: dict[str, int] = Field(default_factory=dict)
    rejects: int = 0
    missing: dict[str, int] = Field(default_factory=dict)
    short_of: dict[str, str] = Field(default_factory=dict)
    set_aside: dict[str, int] = Field(default_factory=dict)
    deciding_tokens: dict[str, int] = Field(default_factory=dict)
    own_answers: dict[str, dict[str, int]] = Field(default_factory=dict)


# ------------------------------------------------------------------------------- what is measured


class EvalMeta(Meta):
    """One evaluation; scores are shares of 1, `low` and `high` bound the mean at 95%.

    `read_tokens` went through the model in `read_seconds`: answers from a journal took neither.
    """

    of_kind: ClassVar[str] = "eval"

    subject: str
    split: str
    arm: str
    n: int
    mean: Number
    low: Number
    high: Number
    prompt_tokens_mean: Number
    base: str
    adapter_id: str | None = None
    scale: Number = 1.0
    rejects: int = 0
    read_tokens: int | None = None
    read_seconds: Number | None = None


class GapMeta(Meta):
    """What stands between base and goals: `findings` are `GapFinding`s as JSON."""

    of_kind: ClassVar[str] = "gap"

    base: str
    findings: Listed[Json]
    guards: dict[str, Json] = Field(default_factory=dict)


class ForgettingMeta(Meta):
    """What an adapter closed and lost: `GuardFinding`, `ClosedFinding` and `Change` as JSON."""

    of_kind: ClassVar[str] = "forgetting"

    adapter: str | None
    model: str | None = None
    scale: Number
    against: str | None = None
    split: str
    kept: Listed[Json]
    closed: dict[str, Json] = Field(default_factory=dict)
    changes: dict[str, Json] = Field(default_factory=dict)


class PromotionMeta(Meta):
    """A decision about the champion; `tests` has the version that each subject was tested on.

    `goals` are the goals, margins and largest drops that stood when test was looked at, `moved`
    those that stood otherwise at an `earlier` look, `asked` the digest of what makes one look,
    `alpha` what an interval may err by at this one.
    """

    of_kind: ClassVar[str] = "promotion"

    base: str
    adapter_id: str
    adapter: str | None = None
    scale: Number = 1.0
    promoted: bool
    split: str
    tests: dict[str, str]
    gates: Listed[Json] = ()
    reasons: Listed[str] = ()
    looks: int = 0
    asked: str = ""
    alpha: Number | None = None
    goals: dict[str, dict[str, bool | Number]] = Field(default_factory=dict)
    moved: Listed[Json] = ()
    earlier: Listed[Json] = ()
    kept: Listed[Json] = ()
    closed: dict[str, Json] = Field(default_factory=dict)
    changes: dict[str, Json] = Field(default_factory=dict)


class MetricsMeta(Meta):
    """The figures of a training run."""

    of_kind: ClassVar[str] = "metrics"

    rows: int
    steps: int


# ------------------------------------------------------------------------------------- weights


class WeightsMeta(Meta):
    """What goes on a base, and whole models: the keys depend on how it was made.

    `origin` is there where it was taken in from elsewhere, `rank`, `alpha` and `round` where it was
    trained, `adapters` and `weights` where it was put together.
    """

    base: str = ""
    bytes: int = 0
    method: str | None = None
    peft_type: str | None = None
    rank: Number | None = None
    alpha: Number | None = None
    scale: Number | None = None
    rows: int | None = None
    steps: int | None = None
    tokens: int | None = None
    trained_tokens: int | None = None
    loss: Number | None = None
    seconds: Number | None = None
    round: int | None = None
    seed: int | None = None
    origin: str | None = None
    license: str | None = None
    adapter_id: str | None = None
    dtype: str | None = None
    adapters: Listed[str] = ()
    weights: Listed[Number] = ()
    density: Number | None = None
    relative_error: Number | None = None


class AdapterMeta(WeightsMeta):
    """An adapter."""

    of_kind: ClassVar[str] = "adapter"


class ModelMeta(WeightsMeta):
    """A merged model, or the tensors that training changed."""

    of_kind: ClassVar[str] = "model"


class MergeMeta(Meta):
    """A merge into a base with its proof; more keys say how, as in `Parity` and `Several`."""

    of_kind: ClassVar[str] = "merge"

    base: str
    path: str
    bytes: int = 0
    dtype: str
    bound: Number
    scale: Number
    max_difference: Number
    adapter_id: str | None = None
    adapter_ids: Listed[str] = ()
    method: str | None = None


# ---------------------------------------------------------------- what was done, and where it went


class RunMeta(Meta):
    """A run of a stage: what decided it, what it came to, what it ran on."""

    of_kind: ClassVar[str] = "run"

    stage: str
    key: str
    status: Literal["done", "failed"]
    started_at: str
    ended_at: str
    seconds: Number
    code_version: int
    inputs: Json
    config: Json = Field(default_factory=dict)
    seed: int | None = None
    result: Json
    outputs: Listed[Output] = ()
    environment: Json = Field(default_factory=dict)
    hardware: Json = Field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether it came to its end."""
        return self.status == "done"


class AliasMeta(Meta):
    """A move of an alias; where to is in its identity."""

    of_kind: ClassVar[str] = "alias"

    reason: str


class RemovalMeta(Meta):
    """An adapter that was set aside; which is in its identity."""

    of_kind: ClassVar[str] = "removal"

    reason: str


class ReproductionMeta(Meta):
    """A training that was done again: whether it came to the same id, and what was otherwise."""

    of_kind: ClassVar[str] = "reproduction"

    same: bool
    changed: dict[str, tuple[Any, Any]]


class SignatureMeta(Meta):
    """A signature over an object's files."""

    of_kind: ClassVar[str] = "signature"

    thing_kind: str
    files: int
    format: str


class ExportMeta(Meta):
    """Files that were written for other programs; a dataset's have neither dtype nor proof.

    `answers` are what a quantised file came to on dev beside the adapter that is in it: a
    `GuardFinding` each, with both evaluations.
    """

    of_kind: ClassVar[str] = "export"

    form: str
    bytes: int
    dtype: str | None = None
    proof: Json | None = None
    environment: Json = Field(default_factory=dict)
    adapter_id: str | None = None
    answers: Listed[Json] = ()


class PushMeta(Meta):
    """An upload; `files` has path -> SHA-256."""

    of_kind: ClassVar[str] = "push"

    object_id: str
    kind: str
    adapter_id: str | None
    repo: str
    revision: str
    private: bool
    request: int | None
    url: str
    files: dict[str, str]


KINDS: dict[str, type[Meta]] = {
    one.of_kind: one
    for one in (
        RowsMeta, VersionMeta, PlacesMeta, ErasureMeta, SelectionMeta, EvalMeta, GapMeta,
        ForgettingMeta, PromotionMeta, MetricsMeta, AdapterMeta, ModelMeta, MergeMeta, RunMeta,
        AliasMeta, RemovalMeta, ReproductionMeta, SignatureMeta, ExportMeta, PushMeta,
    )
}  # fmt: skip
"""Kind -> its model; of any other kind, `Meta` itself is the model."""
