"""What `check` finds of the pool's first rows: which ones the train base can't be trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import DataError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.training.examples.fitting import TemplateFit
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.sources.resolve import Sources
    from registry.datasets.versions.row import Row

LOOKED_AT = 5_000
"""Records of a dataset that are read."""


def notes_on_rows(ws: OpenWorkspace, files: Mapping[str, Sources]) -> list[str]:
    """Return what of the pool's first rows may not be meant.

    Args:
        ws: whose spec names the pool.
        files: of each of its datasets.

    Raises:
        UserError: more of a dataset's rows than the spec allows can't be asked and shown by the
            chat template of the train base; the first is named.
    """
    from pipeline.selection.candidates import pool_of
    from pipeline.training.examples.fitting import TemplateFit

    fit = TemplateFit(ws.models.chat(ws.spec.train.base))
    return [note for name in pool_of(ws) for note in _notes(ws, name, files[name], fit)]


def _notes(ws: OpenWorkspace, name: str, files: Sources, fit: TemplateFit) -> list[str]:
    from pipeline.selection.selection import is_trainable, render
    from pipeline.spec.subjects import subjects
    from pipeline.training.examples.pairs import answered

    subject = next((one.name for one in subjects(ws.spec) if one.spec.data == name), name)
    looked, refused = 0, list[DataError]()
    written: list[str] = []
    special: list[str] = []
    for row in _first_rows(files, name):
        if not is_trainable(row, ws.spec.train.objective):
            continue
        looked += 1
        where = f"{row.source_file}:{row.source_line}"
        try:
            examples = answered(render(ws, row, subject, labels=("…",)))
        except UserError as error:
            refused.append(DataError(error.what, error.where or where, fix=error.fix))
            continue
        if why := next(filter(None, map(fit.refuses, examples)), None):
            refused.append(DataError(why.what, where, fix=why.fix))
        if any(map(fit.is_chat_text, examples)):
            written.append(where)
        elif token := next(filter(None, map(fit.special_in, examples)), None):
            special.append(f"{where}: {token}")
    allowed = ws.spec.train.allow_rejects
    if len(refused) > allowed * looked:
        first = refused[0]
        raise DataError(
            f"{first.what} ({len(refused):,} of {looked:,} rows looked at of dataset '{name}' "
            f"can't be trained on with base '{ws.spec.train.base}')",
            where=first.where,
            expected=f"at most {allowed:.1%}",
            fix=first.fix or "change or drop them, or raise train.allow_rejects",
        )
    notes = []
    if refused:
        notes.append(f"{len(refused)} rows can't be trained on, the first: {refused[0]}")
    notes += _on_texts(written, special)
    return [f"datasets.{name}: {note}" for note in notes]


def _on_texts(written: Sequence[str], special: Sequence[str]) -> Iterator[str]:
    """What is said of texts that are turns of a chat already, and of those with special tokens."""
    if written:
        yield (
            f"{len(written):,} texts end as turns of the base's chat format do, the first "
            f"{written[0]}: they get no second end; as conversations, only answers are trained"
        )
    if special:
        yield (
            f"{len(special):,} rows have special tokens of the base in their text, the first "
            f"{special[0]}: it reads them as what they are in its chat format, trained and asked; "
            "take them out of texts that are in a chat format already"
        )


def _first_rows(files: Sources, name: str) -> Iterator[Row]:
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.sources.chunks import first_records, usable
    from registry.datasets.versions.collect import row_of

    for file, record in first_records(files.files, LOOKED_AT):
        try:
            made = usable(record, files.format, None)
        except UnusableError:
            continue
        yield row_of(made, name, file, record.line)
