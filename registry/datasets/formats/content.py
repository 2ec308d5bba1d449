"""Rows: one training example each, normalised; what decides a row's hash and how it is stored.

Two Parquet files hold them. `rows.parquet` (object kind `rows`, shared by versions) has the
content once per `row_hash`; `refs.parquet` (in a `dataset_version`) has what one version of one
dataset says about a row: its split, cluster, sources and the columns beside question and answer.
Joined on `row_uid` they are a `Row`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["sft", "text", "preference", "feedback"]
SPLITS = ("train", "dev", "test")
HELD = "held"
"""The split of a row that may be neither trained on nor measured: it would leak."""

_HASH_FORMAT = 1  # raised only if the same content must get another hash
_encode = msgspec.json.Encoder().encode


# Of messages and contents millions are made: as structs in less than a fifth of the time.
class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One turn. `tool_calls` is a JSON list; `train: False` keeps a turn out of the loss."""

    role: str
    content: str
    tool_calls: str | None = None
    name: str | None = None
    train: bool | None = None


class Content(msgspec.Struct, frozen=True, array_like=True, tag=_HASH_FORMAT, gc=False):
    """What a row says, apart from where it came from.

    `sft`: messages end with the answer. `text`: one message of the role `text`. `preference`:
    messages are the question, `chosen` and `rejected` the two answers. `feedback`: messages end
    with an answer that `label` calls good or bad. `tools` is a JSON list of function schemas.
    """

    kind: Kind
    messages: tuple[Message, ...]
    chosen: tuple[Message, ...] | None = None
    rejected: tuple[Message, ...] | None = None
    label: bool | None = None
    tools: str | None = None


def encoded(content: Content) -> bytes:
    """Return the JSON that `digest` names: the format of the hash, and then its parts in order.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate, which no UTF-8 can say.
    """
    return _encode(content)


def digest(said: bytes) -> str:
    """Return the 64 hex digits that name an encoded content, the same on any machine."""
    return hashlib.sha256(said).hexdigest()


def content_hash(content: Content) -> str:
    """Return the `row_hash` of a content.

    Raises:
        UnicodeEncodeError: as `encoded`.
    """
    return digest(encoded(content))


def user_text(content: Content) -> str:
    """Return the text that near-duplicates are looked for in: what the user says, in all turns."""
    said = [message.content for message in content.messages if message.role == "user"]
    return "\n".join(said or [message.content for message in content.messages])


def answer(content: Content) -> str:
    """Return the text of the last turn."""
    return content.messages[-1].content


def content_schema() -> pa.Schema:
    """Return the schema of `rows.parquet`."""
    import pyarrow as pa

    text = pa.string()
    texts = [(name, text) for name in ("role", "content", "tool_calls", "name")]
    turn = pa.struct([*texts, ("train", pa.bool_())])
    return pa.schema(
        [
            ("row_uid", pa.int64()),
            ("row_hash", text),
            ("kind", text),
            ("messages", pa.list_(turn)),
            ("chosen", pa.list_(turn)),
            ("rejected", pa.list_(turn)),
            ("label", pa.bool_()),
            ("tools", text),
        ]
    )
