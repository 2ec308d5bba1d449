"""Datasets: what the spec says of one, the files behind it, and reading a version's rows back."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from registry.errors import UserError, damaged
from registry.formats import SHAPES, Format, FormatName, detect
from registry.llamafactory import read_entry
from registry.paths import resolve
from registry.readers import columns_of, read_records
from registry.rows import HELD, SPLITS, Row, row_from

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from registry.store import ObjectRef, Store

_SAMPLE = 100  # records that may be unreadable before the format is given up on

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


class DatasetSpec(BaseModel):
    """Rows: where they are, which columns hold what, and which of them are kept for measuring."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | dict[Literal["train", "dev", "test"], str] = Field(
        description=(
            "A file (.csv .tsv .json .jsonl .ndjson .parquet .txt), or a file for each of train, "
            "dev and test; relative to the workspace; ${NAME} is an environment variable. For "
            "llamafactory: the folder with dataset_info.json."
        )
    )
    format: FormatName | None = Field(
        None, description="How a record becomes a row; found out from the first record if left out."
    )
    name: str | None = Field(None, description="For llamafactory: the entry in dataset_info.json.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Which column holds which part, as in {input: text, output: category}.",
    )
    license: str | None = Field(None, description="The licence of the rows, for the record.")
    split: SplitSpec = Field(
        SplitSpec(),
        description="Rows carved out of train where no file is given; 10% each, at most 1,000.",
    )
    allow_rejects: float = Field(
        0.01, ge=0, le=1, description="The share of rows that may be unusable before ingest stops."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.path:
            message = "path names no file"
            raise ValueError(message)
        if self.format == "llamafactory":
            self._check_llamafactory()
        elif self.name is not None:
            message = "name is for format: llamafactory alone"
            raise ValueError(message)
        elif self.format is not None and (wrong := _unknown_part(self.columns, self.format)):
            raise ValueError(wrong)
        return self

    def _check_llamafactory(self) -> None:
        if self.name is None:
            message = "format: llamafactory needs name, an entry of dataset_info.json"
            raise ValueError(message)
        if self.columns or not isinstance(self.path, str):
            message = "format: llamafactory takes one folder as path, and columns from its entry"
            raise ValueError(message)

    @property
    def carved(self) -> tuple[Literal["dev", "test"], ...]:
        """The splits that no file is given for and that are carved out of train."""
        given = {"train"} if isinstance(self.path, str) else set(self.path)
        if "train" not in given:
            return ()
        return tuple(split for split in ("dev", "test") if split not in given)


@dataclass(frozen=True)
class SourceFile:
    """One file of a dataset; `label` is how it is recorded, without this machine's folders."""

    path: Path
    label: str
    split: str


@dataclass(frozen=True)
class Sources:
    """The files of a dataset and how to read them; at most `num_samples` rows of them."""

    files: tuple[SourceFile, ...]
    format: Format
    num_samples: int | None = None


def source_files(spec: DatasetSpec, root: Path) -> tuple[SourceFile, ...]:
    """Return the files that a dataset names, whether they are there or not.

    Raises:
        UserError: a path with an unset variable; a LLaMA-Factory folder or entry at fault.
    """
    if spec.format == "llamafactory":
        folder = str(spec.path)
        files = read_entry(resolve(folder, root), str(spec.name)).files
        return tuple(SourceFile(path, f"{folder}/{path.name}", "train") for path in files)
    path = spec.path
    given = {"train": path} if isinstance(path, str) else {str(k): v for k, v in path.items()}
    return tuple(
        SourceFile(resolve(given[split], root), _label(given[split], root), split)
        for split in SPLITS
        if split in given
    )


def sources(spec: DatasetSpec, root: Path) -> Sources:
    """Return the files of a dataset with their format, and check the columns they declare.

    Raises:
        UserError: as `source_files`; a file that is missing, that no format fits, or that lacks
            a column.
    """
    files = source_files(spec, root)
    if spec.format == "llamafactory":
        entry = read_entry(resolve(str(spec.path), root), str(spec.name))
        form, samples = entry.format, entry.num_samples
    else:
        name = spec.format or _detected(files[0], spec)
        if wrong := _unknown_part(spec.columns, name):
            raise UserError(wrong, where=files[0].label)
        form, samples = Format(SHAPES[name], spec.columns), None
    for file in files:
        _check_columns(file, form)
    return Sources(files, form, samples)


def load_rows(store: Store, version_id: str, *, splits: Collection[str] | None = None) -> list[Row]:
    """Return the rows of a dataset version, ordered by uid.

    Args:
        store: where the version is.
        version_id: its full id.
        splits: only rows of these splits (train, dev, test, held); all without it.

    Raises:
        StoreError: the version or its rows are not in the store.
        UserError: a split that does not exist.
    """
    for split in splits or ():
        if split not in (*SPLITS, HELD):
            raise UserError(f"no split is called '{split}'", expected=", ".join((*SPLITS, HELD)))
    version = store.get("dataset_version", version_id)
    table = _read(version, "refs.parquet")
    if splits is not None:
        table = table.filter(_is_in(table["split"], sorted(splits)))
    refs = table.to_pylist()
    contents = _contents(store, version, [ref["row_uid"] for ref in refs])
    return [row_from(ref, contents[ref["row_uid"]]) for ref in sorted(refs, key=_uid)]


def _contents(store: Store, version: ObjectRef, uids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return uid -> line of rows.parquet, from the row objects that the version names."""
    found: dict[int, dict[str, Any]] = {}
    for parent in store.manifest(version)["parents"]:
        if parent["role"] == "rows":
            table = _read(store.get("rows", parent["id"]), "rows.parquet")
            lines = table.filter(_is_in(table["row_uid"], uids)).to_pylist()
            found.update((line["row_uid"], line) for line in lines)
    return found


def _read(ref: ObjectRef, name: str) -> Any:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    # ParquetFile and not read_table: the dataset reader takes `kind/id` folders for partitions.
    try:
        with pq.ParquetFile(ref.path / name) as file:
            return file.read()
    except (ArrowException, OSError) as error:
        raise damaged(ref.path / name, error) from error


def _unknown_part(columns: Mapping[str, str], name: FormatName) -> str | None:
    """Return what is wrong with the parts that the spec maps, if anything."""
    parts = SHAPES[name].parts
    for part in columns:
        if part not in parts:
            near = get_close_matches(part, parts, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            return f"columns: no part '{part}' in format {name}, which has {', '.join(parts)}{hint}"
    return None


def _is_in(column: Any, values: Sequence[int] | Sequence[str]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(column, value_set=pa.array(values, column.type))


def _uid(ref: dict[str, Any]) -> int:
    return int(ref["row_uid"])


def _label(text: str, root: Path) -> str:
    """Return a path as it is recorded: as written, or relative to the workspace."""
    path = Path(text)
    if path.is_absolute():
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return path.as_posix()


def _detected(file: SourceFile, spec: DatasetSpec) -> FormatName:
    """Return the format that the file's first readable record looks like."""
    first = None
    for count, record in enumerate(read_records(file.path)):
        if record.value is not None or count >= _SAMPLE:
            first = record.value
            break
    found = detect(first or {}, spec.columns)
    if found is None:
        columns = ", ".join(map(str, first)) if first else "none"
        raise UserError(
            f"no format fits this file, whose first record has the columns: {columns}",
            where=file.label,
            fix="name its format, or map its columns, as {input: question, output: answer}",
        )
    return found


def _check_columns(file: SourceFile, form: Format) -> None:
    """Refuse a file whose header lacks a column that is needed or that the spec maps."""
    declared = columns_of(file.path)
    if declared is None:
        return
    mapped = () if form.strict else form.columns.values()
    for column in dict.fromkeys((*form.required_columns, *mapped)):
        if column not in declared:
            near = get_close_matches(column, declared, n=1)
            raise UserError(
                f"no column '{column}'",
                where=f"{file.label}:1",
                expected=f"one of its columns {', '.join(declared)}",
                fix=f"did you mean '{near[0]}'?" if near else "map it under columns:",
            )
