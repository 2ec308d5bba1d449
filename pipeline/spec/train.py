"""The `train:` part of gapmend.yaml: what is trained, on how many rows, and how."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# The base is identified by its content, the rows by theirs; the rest is about the run alone.
_NOT_DECIDING = frozenset(
    (
        *(
            "base",
            "pool",
            "budget_rows",
            "replay",
            "general",
            "own_answers",
            "checkpoint_steps",
            "allow_rejects",
            "trackers",
        ),
        "activation_checkpointing",  # what is recomputed is what it was
    )
)

# What decides something for some methods alone.
_WITH_BASE = ("dpo", "kto")
_NO_REFERENCE = ("pissa", "freeze", "full")
_ONLY_FOR = {"lora_plus_ratio": ("lora+",), "layers": ("freeze",)}
_LORA_ALONE = ("rank", "targets", "dropout")

ComputeDtype = Literal["fp32", "fp16", "bf16"]
Method = Literal["lora", "dora", "rslora", "pissa", "lora+", "freeze", "full"]
Objective = Literal["sft", "dpo", "orpo", "kto"]
Schedule = Literal["cosine", "linear", "constant"]
METHODS: tuple[Method, ...] = get_args(Method)

# LoRA's best rate is about ten times that of whole weights, whatever the model and its size
# (Schulman et al., "LoRA Without Regret", 2025).
_WHOLE_RATE = 0.1
_LORA_RATE = 4e-4
# The best rate falls with a model's width by this power (fitted on Llama models; the same, as
# published in tinker-cookbook), and is flat for about a factor of three to either side: above
# this width it is left as it is.
_WIDTH, _WIDTH_POWER = 2000, 0.781
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class ValidationSpec(BaseModel):
    """What a run is watched by while it goes on: rows that are not trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(
        default=None, description="dataset whose dev rows are looked at; else selected rows are"
    )
    share: float = Field(
        default=0.05, gt=0, le=0.5, description="share of the selected rows that is held out"
    )
    every: int = Field(default=20, ge=1, description="steps between two checks")
    patience: int = Field(
        default=3, ge=1, description="checks without a better one, after which training ends"
    )
    probe_items: int = Field(
        default=0,
        ge=0,
        le=500,
        description="dev items of tuned capabilities with choices that each check asks",
    )


class TrainSpec(BaseModel):
    """Everything that decides an adapter, besides the base and the selected rows.

    The defaults suit instruction-tuned models of 0.1 to 10 billion parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(min_length=1, description="name of a base under `bases:`")
    method: Method = Field(
        default="lora",
        description="how weights are changed: LoRA or a kind of it, the last layers, or all",
    )
    objective: Objective = Field(
        default="sft",
        description="sft learns answers; dpo and orpo prefer the chosen one; kto heeds feedback",
    )
    beta: float = Field(
        default=0.1, gt=0, le=10, description="dpo, orpo, kto: how strongly; their papers' beta"
    )
    rank: int = Field(default=16, ge=1, le=1024, description="rank r of the LoRA matrices")
    alpha: int | None = Field(
        default=None, ge=1, description="LoRA alpha; the update is scaled by alpha / rank. 2 x rank"
    )
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear",
        description="modules that get LoRA; all-linear: linear layers and experts, not the head",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=0.05,
        description="peak rate of AdamW. 4e-4, more below a width of 2,000; a tenth of it for "
        "freeze and full",
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="share of the steps in which the rate rises"
    )
    schedule: Schedule = Field(
        default="cosine", description="how the rate falls to 0 after it, or that it doesn't"
    )
    weight_decay: float = Field(
        default=0.0, ge=0, le=1, description="AdamW's, of matrices; not of biases and norms"
    )
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="norm that a step's gradient is clipped to; null: it is not"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of LoRA's inputs that a step leaves out"
    )
    lora_plus_ratio: float = Field(
        default=16, ge=1, le=1024, description="lora+: rate of the B matrices / that of the others"
    )
    layers: int = Field(
        default=2, ge=1, description="freeze: how many layers, the last, are trained"
    )
    epochs: float = Field(
        default=2, ge=0.01, le=100, description="passes over the selected rows; 1.5 ends half-way"
    )
    batch_rows: int = Field(default=16, ge=1, description="most rows in one packed batch")
    batch_tokens: int = Field(
        default=4096, ge=64, description="most tokens of whole rows in one packed batch: memory"
    )
    min_steps: int = Field(
        default=60, ge=1, description="steps that batches are made smaller for, where rows are few"
    )
    accumulation: int = Field(
        default=1, ge=1, description="packed batches whose gradients make one step"
    )
    pool: tuple[str, ...] = Field(default=(), description="datasets that rows may be chosen from")
    budget_rows: int = Field(default=2000, ge=1, description="rows chosen for one run")
    replay: float = Field(
        default=0.2, ge=0, lt=1, description="share of rows that the base already answers right"
    )
    general: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of rows that are the base's own text; null: 0.05 where a guard is an "
        "lm-eval task and replay is not 0",
    )
    kl: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="weight of the KL divergence from the base on the answers of replayed rows",
    )
    own_answers: int = Field(
        default=0,
        ge=0,
        le=16,
        description="answers that the base draws to each row for a gap; the first right one is "
        "trained on instead of the dataset's",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of LoRA's start and the row order")
    dtype: ComputeDtype | None = Field(
        default=None,
        description="dtype of the frozen weights while training; null: what this machine computes "
        "fastest and well",
    )
    activation_checkpointing: bool | None = Field(
        default=None,
        description="recompute activations: less memory for a third more time; null: where memory "
        "would not be enough without",
    )
    validation: ValidationSpec | None = Field(
        default=None, description="checks on a schedule; the best one's weights are kept"
    )
    trackers: tuple[TrackerName, ...] = Field(
        default=(), description="who else is told of each step; see docs/guide/tracking.md"
    )
    checkpoint_steps: int = Field(default=50, ge=1, description="steps between two checkpoints")
    allow_rejects: float = Field(
        default=0.01, ge=0, le=1, description="share of rows that may be too long for the base"
    )

    @field_validator("targets", mode="after")
    @classmethod
    def _some_target(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            message = "name at least one module, or all-linear"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _a_reference(self) -> Self:
        if self.objective in _WITH_BASE and self.method in _NO_REFERENCE:
            message = (
                f"{self.objective} needs the base beside what is trained, and {self.method} has "
                "changed it; take lora, dora, rslora or lora+, or orpo, which needs none"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _room_for_gaps(self) -> Self:
        if self.general and self.objective != "sft":
            message = (
                f"{self.objective} doesn't learn from the base's own text, which has no other "
                "answer beside it; leave general out, or take sft"
            )
            raise ValueError(message)
        if self.general and self.general + self.replay >= 1:
            message = "replay and general are shares of the same rows, and leave none for the gaps"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _answers_to_learn(self) -> Self:
        if self.own_answers and self.objective != "sft":
            message = (
                f"own_answers is for sft, and {self.objective} learns from more than a right "
                "answer; leave own_answers out, or take sft"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _a_base_to_keep_to(self) -> Self:
        if not self.kl:
            return self
        if self.objective != "sft":
            message = (
                f"kl is for sft, and {self.objective} has its own way to stay near the base; "
                "leave kl out"
            )
            raise ValueError(message)
        if self.method in _NO_REFERENCE:
            message = (
                f"kl needs the base beside what is trained, and {self.method} has changed it; "
                "take lora, dora, rslora or lora+"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _no_noise(self) -> Self:
        if self.dropout and self.kl:
            message = "kl compares two likelihoods, which dropout makes noise of; leave dropout out"
            raise ValueError(message)
        if self.dropout and self.objective != "sft":
            message = (
                f"{self.objective} compares two likelihoods, which dropout makes noise of; "
                "leave dropout out"
            )
            raise ValueError(message)
        return self

    def deciding(self) -> dict[str, Any]:
        """What of the spec decides the adapter's weights, given the base and the rows."""
        kept = self.model_dump(mode="json", exclude=set(_NOT_DECIDING)) | {
            "learning_rate": self.rate
        }
        if self.is_lora:
            kept["alpha"] = self.lora_alpha
        else:
            kept = {key: kept[key] for key in kept if key not in {"alpha", *_LORA_ALONE}}
        if self.objective == "sft":
            del kept["beta"]
        if not self.kl:
            del kept["kl"]
        if self.validation is None:
            del kept["validation"]
        without = {key for key, methods in _ONLY_FOR.items() if self.method not in methods}
        return {key: value for key, value in kept.items() if key not in without}

    def by(self, method: Method) -> Self:
        """The same with another method, at the rate that it wants."""
        other = self.model_copy(update={"method": method})
        if self.learning_rate is None or self.is_lora == other.is_lora:
            return other
        rate = self.learning_rate * (_WHOLE_RATE if self.is_lora else 1 / _WHOLE_RATE)
        return other.model_copy(update={"learning_rate": rate})

    @property
    def is_lora(self) -> bool:
        """Whether an adapter comes of it; else the base's own weights are changed."""
        return self.method not in {"freeze", "full"}

    @property
    def rate(self) -> float:
        """The peak learning rate in force; see `on_base`."""
        return self.learning_rate if self.learning_rate is not None else self.usual_rate(None)

    def usual_rate(self, width: int | None) -> float:
        """Return the method's rate for a base of this width, where it is known."""
        rate = _LORA_RATE if self.is_lora else _LORA_RATE * _WHOLE_RATE
        return rate * max(1.0, (_WIDTH / width) ** _WIDTH_POWER) if width else rate

    def on_base(self, width: int | None) -> Self:
        """The same with the rate written out that a base of this width is trained at."""
        rate = self.learning_rate
        rate = self.usual_rate(width) if rate is None else rate
        return self.model_copy(update={"learning_rate": rate})

    @property
    def lora_alpha(self) -> int:
        """The alpha in force: the given one, or twice the rank."""
        return self.alpha if self.alpha is not None else 2 * self.rank
