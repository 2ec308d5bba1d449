"""LZ4 frames unpacked in plain Python: what xet's clients compress chunks with."""

from __future__ import annotations

import struct

_MAGIC = 0x184D2204


def unpack(frame: bytes) -> bytes:
    """Unpack one frame.

    Raises:
        ValueError: when it isn't an LZ4 frame, or ends early.
    """
    try:
        return _unpack(frame)
    except (IndexError, struct.error) as error:
        raise ValueError("LZ4 frame ends early") from error


def _unpack(frame: bytes) -> bytes:
    magic, flags = struct.unpack_from("<IB", frame)
    if magic != _MAGIC:
        raise ValueError("not an LZ4 frame")
    at = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    out = bytearray()
    while size := struct.unpack_from("<I", frame, at)[0]:
        at += 4
        length = size & 0x7FFFFFFF
        block = frame[at : at + length]
        if len(block) < length:
            raise ValueError("LZ4 frame ends early")
        if size >> 31:
            out += block
        else:
            _unpack_block(block, out)
        at += length + (4 if flags & 0x10 else 0)
    return bytes(out)


def _unpack_block(block: bytes, out: bytearray) -> None:
    at = 0
    while at < len(block):
        token = block[at]
        literals, at = _length(block, at + 1, token >> 4)
        out += block[at : at + literals]
        at += literals
        if at >= len(block):
            return  # the last sequence has literals only
        back = block[at] | block[at + 1] << 8
        count, at = _length(block, at + 2, token & 15)
        start, count = len(out) - back, count + 4
        if back == 0 or start < 0:
            raise ValueError("LZ4 block points before its beginning")
        piece = bytes(out[start : start + count])
        out += (piece * (count // len(piece) + 1))[:count]  # may overlap what it makes


def _length(block: bytes, at: int, length: int) -> tuple[int, int]:
    if length == 15:
        while True:
            more = block[at]
            at += 1
            length += more
            if more != 255:
                break
    return length, at
