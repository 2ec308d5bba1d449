"""The `train:` part of gapmend.yaml: what is trained, on how many rows, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# The base is identified by its content, the rows by theirs; the rest is about the run alone.
_NOT_DECIDING = frozenset(
    ("base", "pool", "budget_rows", "replay", "checkpoint_steps", "allow_rejects")
)

ComputeDtype = Literal["fp32", "fp16", "bf16"]


class TrainSpec(BaseModel):
    """Everything that decides an adapter, besides the base and the selected rows.

    The defaults suit instruction-tuned models of 0.5 to 10 billion parameters; a very small base
    wants a higher rate (the quickstart says 2e-3 for `nano`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(min_length=1, description="name of a base under `bases:`")
    method: Literal["lora"] = Field(default="lora", description="how weights are changed")
    rank: int = Field(default=16, ge=1, le=1024, description="rank r of the LoRA matrices")
    alpha: int | None = Field(
        default=None, ge=1, description="LoRA alpha; the update is scaled by alpha / rank. 2 x rank"
    )
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear",
        description="module names that get LoRA; all-linear is every linear layer but the LM head",
    )
    learning_rate: float = Field(default=2e-4, gt=0, le=0.05, description="peak rate of AdamW")
    epochs: int = Field(default=2, ge=1, le=100, description="passes over the selected rows")
    batch_tokens: int = Field(
        default=4096, ge=64, description="most tokens of whole rows in one packed batch"
    )
    accumulation: int = Field(
        default=1, ge=1, description="packed batches whose gradients make one step"
    )
    pool: tuple[str, ...] = Field(default=(), description="datasets that rows may be chosen from")
    budget_rows: int = Field(default=2000, ge=1, description="rows chosen for one run")
    replay: float = Field(
        default=0.2, ge=0, lt=1, description="share of rows that the base already answers right"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of LoRA's start and the row order")
    dtype: ComputeDtype | None = Field(
        default=None, description="dtype of the frozen weights while training; as loaded if null"
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

    def deciding(self) -> dict[str, Any]:
        """What of the spec decides the adapter's weights, given the base and the rows."""
        kept = self.model_dump(mode="json", exclude=set(_NOT_DECIDING))
        return kept | {"alpha": self.lora_alpha}

    @property
    def lora_alpha(self) -> int:
        """The alpha in force: the given one, or twice the rank."""
        return self.alpha if self.alpha is not None else 2 * self.rank
