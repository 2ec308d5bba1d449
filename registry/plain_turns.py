"""Plain conversations of JSON lines as columns, without an object for each of them.

A line is plain if it is written as programs write it: the turns in one list, each with two keys in
one order, its role and its text, roles that alternate, no text that is blank. It is never parsed:
where it is cut is decided by what can't stand within a string of JSON (`{"`, and quotes without a
backslash), and what is between the cuts is proved to be strings. Every other line is left to the
reader of records, which gives for a plain one the same (tests/unit/test_plain_turns.py).
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np

from registry.hash_index import digests_as_texts
from registry.json_strings import BACKSLASH, QUOTE, bytes_of, escapes_of, read_strings
from registry.readers_text import json_line
from registry.rows import content_schema
from registry.turns import UnusableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from registry.formats import Format
    from registry.json_strings import Strings
    from registry.line_blocks import Block

    Numbers = NDArray[np.int64]
    Flags = NDArray[np.bool_]

_ROLES = ("system", "user", "assistant")
_SYSTEM, _USER, _ASSISTANT = range(len(_ROLES))
_LOOKED_AT = 1 << 16  # bytes of a block that show how it is written
_LARGEST = 1 << 28  # bytes of a block: what is made of them has offsets of 32 bits
_CLOSE = b'"}]'
_STAND_IN = secrets.token_hex(16)  # for the turns, where the columns around them are parsed
_WORD = 8
_QUOTES = 8  # bare quotes of a turn: four between its two values, four between it and the next
# First bytes of texts that may be blank: ASCII's space, and of what Unicode calls one.
_PERHAPS_BLANK = np.isin(np.arange(256), [*range(33), 0xC2, 0xE1, 0xE2, 0xE3])


@dataclass(frozen=True)
class _Style:
    """How lines are written: what opens the list, parts a turn, and parts two turns."""

    column: bytes
    open: bytes
    middle: bytes
    between: bytes
    role_first: bool


@dataclass(frozen=True)
class PlainTurns:
    """Reads the plain lines of one format."""

    form: Format
    styles: tuple[_Style, ...]
    roles: Mapping[str, int]

    @classmethod
    def of(cls, form: Format) -> Self | None:
        """Return the reader of a format of conversations; None for any other."""
        dialect = form.shape.dialect
        if dialect is None or form.shape.required != ("messages",) or "messages" not in form.used:
            return None
        column, keys = form.used["messages"], (dialect.role_key, dialect.content_key)
        if any(not name.isidentifier() or not name.isascii() for name in (column, *keys)):
            return None
        roles = {word: _ROLES.index(role) for word, role in dialect.roles.items() if role in _ROLES}
        return cls(form, tuple(_styles(column, keys)), roles)

    def read(self, block: Block, labels: Collection[str] | None) -> tuple[pa.Table, Numbers]:
        """Return the plain lines as `Chunk.table` has them, and their numbers in the block.

        Args:
            block: the lines.
            labels: the answers that are allowed; None allows any.
        """
        import pyarrow as pa

        start = block.data[:_LOOKED_AT]
        style = max(self.styles, key=lambda style: start.count(style.open))
        bounds = _bounds(block, style, self.form)
        if len(block.data) > _LARGEST or not len(bounds.lines):
            return _none(), np.empty(0, np.int64)
        cuts, rows = _cuts(block, bounds, style)
        try:
            turns = _turns(block, cuts, style, self.roles)
        except pa.ArrowInvalid:
            # Some byte is no UTF-8: the reader of records finds and rejects that line alone.
            return _none(), np.empty(0, np.int64)
        good = turns.usable(labels)
        if not good.all():
            turns, rows = turns.of_rows(good), rows[good]
        if not len(rows):
            return _none(), rows
        metas = [bounds.metas[row] for row in rows.tolist()] if bounds.some_meta else None
        return _table(turns.hashes(), metas, turns), bounds.lines[rows]


def _styles(column: str, keys: tuple[str, str]) -> Iterator[_Style]:
    for colon, comma in ((": ", ", "), (":", ",")):
        for first, second in (keys, keys[::-1]):
            yield _Style(
                f'"{column}"'.encode(),
                f'"{column}"{colon}[{{"{first}"{colon}"'.encode(),
                f'"{comma}"{second}"{colon}"'.encode(),
                f'"}}{comma}{{"{first}"{colon}"'.encode(),
                role_first=first == keys[0],
            )


# ------------------------------------------------------------------------ where the turns are


@dataclass(frozen=True)
class _Bounds:
    """Lines that may be plain: their numbers, where their turns begin and end, their metas."""

    lines: Numbers
    begins: Numbers
    ends: Numbers
    metas: list[str]
    some_meta: bool


def _bounds(block: Block, style: _Style, form: Format) -> _Bounds:
    """Find the turns of each line; where nothing is around them, in all lines at once."""
    letters = np.frombuffer(block.data, np.uint8)
    opening, closing = b"{" + style.open, _CLOSE + b"}"
    begins, ends = block.starts + len(opening), block.ends - len(closing)
    alone = block.printed & (begins <= ends)
    alone[alone] = _stands(letters, block.starts[alone], opening)
    alone[alone] = _stands(letters, ends[alone], closing)
    metas = ["{}"] * len(alone)
    others = np.flatnonzero(block.printed & ~alone).tolist()
    for line in others:
        found = _within(block, line, style, form)
        if found is not None:
            begins[line], ends[line], metas[line] = found
            alone[line] = True
    lines = np.flatnonzero(alone)
    kept = [metas[line] for line in lines.tolist()] if others else []
    return _Bounds(lines, begins[lines], ends[lines], kept, bool(others))


def _within(block: Block, line: int, style: _Style, form: Format) -> tuple[int, int, str] | None:
    """Return where a line's turns begin and end among other columns, and those as meta."""
    start, stop = int(block.starts[line]), int(block.ends[line])
    at = block.data.find(style.open, start, stop)
    end = block.data.rfind(_CLOSE, at, stop) if at >= 0 else -1
    begin = at + len(style.open)
    if end < begin:
        return None
    before, behind = block.data[start:at], block.data[end + len(_CLOSE) : stop]
    if style.column in before or style.column in behind:
        return None
    around = before + style.column + f':"{_STAND_IN}"'.encode() + behind
    record = json_line(block.first + line, around)
    if record is None or record.value is None:
        return None
    rest = record.value
    is_there = rest.pop(form.used["messages"], None) == _STAND_IN  # neither deeper nor again
    if not is_there or not rest.keys().isdisjoint(form.used.values()):
        return None
    try:
        meta = form.meta(rest)
        meta.encode()
    except (UnusableError, UnicodeEncodeError):
        return None
    return begin, end, meta


# ------------------------------------------------------------------------------- the turns


@dataclass(frozen=True)
class _Turns:
    """Turns of rows, one after another.

    Attributes:
        counts: of each row.
        roles: places in `_ROLES`, -1 for a word that is none of them.
        said: what each says.
    """

    counts: Numbers
    roles: Numbers
    said: Strings

    @property
    def starts(self) -> Numbers:
        """Of each row, and where the last one ends."""
        return np.concatenate(([0], np.cumsum(self.counts)))

    def usable(self, labels: Collection[str] | None) -> Flags:
        """Which rows are plain: roles that alternate to an answer, and no text that is blank."""
        import pyarrow as pa
        import pyarrow.compute as pc

        starts = self.starts
        firsts, lasts = starts[:-1], starts[1:] - 1
        has_system = self.roles[firsts] == _SYSTEM
        place = np.arange(len(self.roles)) - np.repeat(firsts + has_system, self.counts)
        expected = np.where(place % 2 == 0, _USER, _ASSISTANT)
        expected[place < 0] = _SYSTEM
        good = (self.roles == expected) & self.said.valid & ~_blank(self.said.texts)
        rows = np.logical_and.reduceat(good, firsts) if len(firsts) else np.empty(0, np.bool_)
        rows &= self.roles[lasts] == _ASSISTANT
        if labels is not None:
            answers = self.said.texts.take(pa.array(lasts))
            allowed = pc.is_in(answers, value_set=pa.array(sorted(labels), pa.string()))
            rows &= allowed.to_numpy(zero_copy_only=False)
        return rows

    def of_rows(self, wanted: Flags) -> _Turns:
        """Return the turns of some rows."""
        kept = np.repeat(wanted, self.counts)
        return _Turns(self.counts[wanted], self.roles[kept], self.said.filter(kept))

    def hashes(self) -> pa.Array:
        """Return the hash of each row, as `rows.row_hash` makes it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        begins = pa.array([f'["{role}","' for role in _ROLES]).take(pa.array(self.roles))
        turns = pc.binary_join_element_wise(begins, self.said.written, '",null,null,null]', "")
        lists = pa.ListArray.from_arrays(pa.array(self.starts, pa.int32()), turns)
        texts = pc.binary_join_element_wise(
            '[1,"sft",[', pc.binary_join(lists, ","), "],null,null,null,null]", ""
        )
        starts, letters = bytes_of(texts)
        data, sha256 = memoryview(letters.data), hashlib.sha256
        digests = [sha256(data[a:b]).digest() for a, b in pairwise(starts.tolist())]
        return digests_as_texts(b"".join(digests))

    def asked(self) -> pa.Array:
        """Return what the user says in all turns of each row, as `rows.user_text` does."""
        import pyarrow as pa
        import pyarrow.compute as pc

        is_user = self.roles == _USER
        texts = self.said.texts.filter(is_user)
        ends = np.concatenate(([0], np.cumsum(is_user)))[self.starts]
        lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), texts)
        return pc.binary_join(lists, "\n")


@dataclass(frozen=True)
class _Cuts:
    """Where turns are: of each row how many, of each turn where its two values begin and end."""

    counts: Numbers
    firsts: tuple[Numbers, Numbers]
    seconds: tuple[Numbers, Numbers]


def _cuts(block: Block, bounds: _Bounds, style: _Style) -> tuple[_Cuts, Numbers]:
    """Cut lines at their quotes; also which of the lines that may be plain were cut."""
    letters = np.frombuffer(block.data, np.uint8)
    quotes = _bare_quotes(letters)
    first, last = (np.searchsorted(quotes, edge) for edge in (bounds.begins, bounds.ends))
    lines = np.flatnonzero((last - first) % _QUOTES == _QUOTES // 2)
    first, last = first[lines], last[lines]
    counts = (last - first) // _QUOTES + 1
    starts = np.cumsum(counts) - counts
    number = np.arange(counts.sum()) - np.repeat(starts, counts)
    at = np.repeat(first, counts) + number * _QUOTES  # the quote that ends a turn's first value
    opens = np.where(number == 0, np.repeat(bounds.begins[lines], counts), quotes[at - 1] + 1)
    is_last = np.zeros(len(at), np.bool_)
    is_last[starts + counts - 1] = True
    good = _stands(letters, quotes[at], style.middle)
    good &= is_last | _stands(letters, quotes[at + 4], style.between)
    good &= ~is_last | (quotes[at + 4] == np.repeat(bounds.ends[lines], counts))
    whole = np.logical_and.reduceat(good, starts) if len(lines) else np.empty(0, np.bool_)
    kept = np.repeat(whole, counts)
    at, opens = at[kept], opens[kept]
    found = _Cuts(counts[whole], (opens, quotes[at]), (quotes[at + 3] + 1, quotes[at + 4]))
    return found, lines[whole]


def _bare_quotes(letters: NDArray[np.uint8]) -> Numbers:
    """Return where the quotes are that no backslash escapes."""
    quotes, slashes = (np.flatnonzero(letters == letter) for letter in (QUOTE, BACKSLASH))
    if not len(slashes):
        return quotes
    escaped = np.zeros(len(letters) + 1, np.bool_)
    escaped[slashes[escapes_of(slashes)] + 1] = True
    return quotes[~escaped[quotes]]


def _stands(letters: NDArray[np.uint8], places: Numbers, text: bytes) -> Flags:
    """Return at which places a text stands."""
    found = places <= len(letters) - len(text)
    if len(letters) < len(text):
        return found
    # In words of eight bytes, the last of which may overlap the one before it; or byte by byte.
    size = _WORD if len(text) >= _WORD else 1
    words = np.ndarray(len(letters) - size + 1, f"<u{size}", letters.data, strides=(1,))
    for begin in {*range(0, len(text) - size, size), len(text) - size}:
        wanted = int.from_bytes(text[begin : begin + size], "little")
        found[found] = words[places[found] + begin] == wanted
    return found


def _texts(block: Block, begins: Numbers, ends: Numbers) -> pa.Array:
    """Return parts of a block, none of which begins before another one's end."""
    import pyarrow as pa

    edges = np.stack((begins, ends), axis=1).ravel().astype(np.int32)
    buffers = [None, pa.py_buffer(edges.tobytes()), pa.py_buffer(block.data)]
    every = pa.Array.from_buffers(pa.binary(), max(len(edges) - 1, 0), buffers)
    return every.take(pa.array(np.arange(0, len(every), 2))).cast(pa.string())


def _turns(block: Block, cuts: _Cuts, style: _Style, roles: Mapping[str, int]) -> _Turns:
    """Read turns.

    Raises:
        pa.ArrowInvalid: a byte is no UTF-8.
    """
    both = _texts(block, *cuts.firsts), _texts(block, *cuts.seconds)
    words, raw = both if style.role_first else both[::-1]
    coded = words.dictionary_encode()
    meanings = [roles.get(word, -1) for word in coded.dictionary.to_pylist()]
    numbers = np.array(meanings, np.int64)[coded.indices.to_numpy()]
    return _Turns(cuts.counts, numbers, read_strings(raw))


def _blank(texts: pa.Array) -> Flags:
    """Return which texts have nothing but space."""
    starts, letters = bytes_of(texts)
    blank = starts[1:] == starts[:-1]
    firsts = letters[starts[:-1][~blank]]
    for place in np.flatnonzero(~blank)[_PERHAPS_BLANK[firsts]].tolist():
        blank[place] = not texts[place].as_py().strip()
    return blank


def _none() -> pa.Table:
    """Return the table of no rows."""
    import pyarrow as pa

    fields = [one for one in content_schema() if one.name != "row_uid"]
    beside = [pa.field("meta", pa.string()), pa.field("text", pa.string())]
    return pa.schema([*fields, *beside]).empty_table()


def _table(hashes: pa.Array, metas: list[str] | None, turns: _Turns) -> pa.Table:
    import pyarrow as pa

    count, schema = len(turns.counts), content_schema()
    kind = schema.field("messages").type
    size = len(turns.roles)
    fields = [
        pa.array(_ROLES).take(pa.array(turns.roles)),
        turns.said.texts,
        *(pa.nulls(size, kind.value_type.field(number).type) for number in (2, 3, 4)),
    ]
    columns = {
        "row_hash": hashes,
        "kind": pa.repeat("sft", count),
        "messages": pa.ListArray.from_arrays(
            pa.array(turns.starts, pa.int32()),
            pa.StructArray.from_arrays(fields, fields=list(kind.value_type)),
            type=kind,
        ),
        **{name: pa.nulls(count, schema.field(name).type) for name in ("chosen", "rejected")},
        **{name: pa.nulls(count, schema.field(name).type) for name in ("label", "tools")},
        "meta": pa.repeat("{}", count) if metas is None else pa.array(metas, pa.string()),
        "text": turns.asked(),
    }
    return pa.table(columns)
