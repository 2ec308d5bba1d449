"""Datasets: what the spec says of one, and the files behind it."""

from __future__ import annotations

import codecs
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from registry.datasets.formats.format import FormatName
from registry.datasets.formats.shapes import CONVERSATIONAL, SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping


_Split = Literal["train", "dev", "test"]
_Roles = Literal["system", "user", "assistant", "tool", "function_call"]

Size = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)],
    Field(description="A number of rows (1000) or a share of all (0.1)."),
]


class SplitSpec(BaseModel):
    """How many rows to keep out of training, where the files don't say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dev: Size | None = Field(None, description="For gap, prompts and selection.")
    test: Size | None = Field(None, description="For promote, scored once.")

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        shares = [size for size in (self.dev, self.test) if isinstance(size, float)]
        if sum(shares) > 1:
            message = f"dev and test are shares that add up to {sum(shares):g}, more than all rows"
            raise ValueError(message)
        return self


class TurnSpec(BaseModel):
    """Under which keys a conversation's turns have what, as in {role: from, content: value}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str = Field("role", description="Who speaks.")
    content: str = Field("content", description="What is said.")
    train: str | None = Field(
        None,
        description="Whether an assistant's turn is trained, true or false; weight without it.",
    )


class DatasetSpec(BaseModel):
    """Rows: where they are, which columns hold what, and which of them are kept for measuring."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | dict[_Split, str] | None = Field(
        None,
        description=(
            "A file (.csv .tsv .json .jsonl .ndjson .txt, also with .gz or .zst, .parquet .arrow "
            ".feather), a folder of them or a glob, or one for each of train, dev and test; "
            "relative to the workspace; ${NAME} is an environment variable. For llamafactory: the "
            "folder with dataset_info.json."
        ),
    )
    hub: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="A dataset on the Hub, as owner/name; instead of path.",
    )
    revision: str | None = Field(None, description="Of hub: a branch, a tag or, best, a commit.")
    subset: str | None = Field(None, description="Of hub: one of its subsets (configs).")
    splits: dict[_Split, str] | None = Field(
        None, description="Of hub: which of its splits each is; its train by default."
    )
    sql: str | dict[_Split, str] | None = Field(
        None,
        description="A SELECT over the workspace's files, run by DuckDB; instead of path.",
    )
    format: FormatName | None = Field(
        None, description="How a record becomes a row; found out from the first record if left out."
    )
    name: str | None = Field(None, description="For llamafactory: the entry in dataset_info.json.")
    encoding: str | None = Field(
        None,
        description="What its texts are written in, such as windows-1252; by default UTF-8 or -16.",
    )
    separator: str | None = Field(
        None,
        pattern=r"^[^\r\n\"]$",
        description="What stands between the fields of its tables; found out if left out.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Which column holds which part, as in {input: text, output: category}.",
    )
    turns: TurnSpec | None = Field(
        None, description="Under which keys turns have what, as in {role: from, content: value}."
    )
    roles: dict[_Roles, list[str]] | None = Field(
        None, description="What its words for roles mean, as in {user: [human], assistant: [bot]}."
    )
    license: str | None = Field(None, description="The licence of the rows, for the record.")
    split: SplitSpec = Field(
        SplitSpec(),
        description="Rows carved out of train where no file is given; 10% each, at most 1,000.",
    )
    allow_rejects: float = Field(
        0.01, ge=0, le=1, description="The share of rows that may be unusable before ingest stops."
    )

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        try:
            codecs.getincrementaldecoder(name or "utf-8")
            "a".encode(name or "utf-8").decode(name or "utf-8")  # not so with base64 or rot13
        except (LookupError, UnicodeError):
            message = f"no encoding {name!r} is known; expected one such as windows-1252 or gb18030"
            raise ValueError(message) from None
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        places = [key for key in ("path", "hub", "sql") if getattr(self, key) is not None]
        if len(places) != 1:
            named = f"; this one names {' and '.join(places)}" if places else ""
            message = f"it needs one of path, hub and sql, where its rows are{named}"
            raise ValueError(message)
        if not getattr(self, places[0]):
            message = f"{places[0]} names no file"
            raise ValueError(message)
        of_hub = [k for k in ("revision", "subset", "splits") if getattr(self, k) is not None]
        if of_hub and self.hub is None:
            message = f"{of_hub[0]} is for hub alone"
            raise ValueError(message)
        if self.splits is not None and not self.splits:
            message = "splits names no split"
            raise ValueError(message)
        self._check_format()
        return self

    def _check_format(self) -> None:
        if self.format == "llamafactory":
            self._check_llamafactory()
            return
        if self.name is not None:
            message = "name is for format: llamafactory alone"
            raise ValueError(message)
        written = "turns" if self.turns else "roles" if self.roles else None
        if written and self.format is not None and self.format not in CONVERSATIONAL:
            message = f"{written} is for the formats {', '.join(CONVERSATIONAL)}"
            raise ValueError(message)
        if self.format is not None and (wrong := unknown_part(self.columns, self.format)):
            raise ValueError(wrong)

    def _check_llamafactory(self) -> None:
        if self.name is None:
            message = "format: llamafactory needs name, an entry of dataset_info.json"
            raise ValueError(message)
        if self.columns or self.turns or self.roles or not isinstance(self.path, str):
            message = "format: llamafactory takes one folder as path, and columns from its entry"
            raise ValueError(message)

    @property
    def places(self) -> Mapping[str, str]:
        """For each split that is given: its path, its query, or the Hub's split."""
        if self.hub is not None:
            return {str(k): v for k, v in (self.splits or {"train": "train"}).items()}
        given = self.path if self.path is not None else self.sql
        if isinstance(given, dict):
            return {str(split): place for split, place in given.items()}
        return {"train": given or ""}

    @property
    def carved(self) -> tuple[Literal["dev", "test"], ...]:
        """The splits that no file is given for and that are carved out of train."""
        if "train" not in self.places:
            return ()
        return tuple(split for split in ("dev", "test") if split not in self.places)


def unknown_part(columns: Mapping[str, str], name: FormatName) -> str | None:
    """Return what is wrong with the parts that the spec maps, if anything."""
    parts = SHAPES[name].parts
    for part in columns:
        if part not in parts:
            near = get_close_matches(part, parts, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            return f"columns: no part '{part}' in format {name}, which has {', '.join(parts)}{hint}"
    return None
