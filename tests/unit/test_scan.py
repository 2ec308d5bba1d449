"""Nothing secret leaves: the scan finds what is planted, wherever it is planted."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.errors import UserError
from registry.scan import refuse_secrets, scan_files

HUB = "hf_" + "abcdefghijKLMNOPQRST"
AWS = "AKIA" + "IOSFODNN7EXAMPLA"
GITHUB = "ghp_" + "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx"
KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"


def kinds(name: str, content: Path | bytes, *private: str) -> list[str]:
    return [finding.kind for finding in scan_files([(name, content)], private)]


@pytest.mark.parametrize("secret", [HUB, AWS, GITHUB, KEY])
def test_a_secret_is_found_in_text(secret: str) -> None:
    assert kinds("README.md", f"# A card\n\nuse {secret}\n".encode())
    assert not kinds("README.md", b"# A card\n\nuse nothing\n")


def test_an_allow_comment_does_not_hide_it() -> None:
    assert kinds("README.md", f"x = {GITHUB}  # pragma: allowlist secret".encode())


def test_an_escaped_path_is_found() -> None:
    assert kinds("config.json", rb'{"a": "\/home\/me\/model"}') == ["a path of some machine"]


def test_a_private_text_is_found() -> None:
    assert kinds("README.md", b"made in /srv/mine/here", "/srv/mine") == [
        "a path or token of this machine"
    ]


def test_a_long_line_is_looked_through_to_its_end() -> None:
    text = "x " * 100_000 + GITHUB
    assert kinds("tokenizer.json", text.encode())


def test_a_secret_on_the_cut_of_a_long_line_is_found() -> None:
    for shift in range(0, 60, 7):
        text = " " * ((1 << 16) - 20 - shift) + GITHUB + " " * 1000
        assert kinds("tokenizer.json", text.encode()), shift


def test_a_header_is_read(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"format": "pt", "from": HUB}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert kinds("model.safetensors", path) == ["a Hugging Face token"]


def test_compressed_rows_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    halves = [f"this is {AWS[:10]} and " * 9, f"that is {AWS[10:]} and " * 9]  # what zstd refers to
    table = pa.table({"text": [*halves, f"my key is {AWS}"]})
    pq.write_table(table, path, compression="zstd", write_statistics=False)
    assert AWS.encode() not in path.read_bytes()
    (found,) = scan_files([("data/train.parquet", path)], ())
    assert (found.file, found.line) == ("data/train.parquet", 3)


def test_rows_may_speak_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": ["cd /home/alice"]}), path)
    assert not kinds("data/train.parquet", path)


def test_the_refusal_names_places_and_not_the_secret() -> None:
    with pytest.raises(UserError) as raised:
        refuse_secrets(scan_files([("README.md", f"a\nb {HUB}\n".encode())], ()))
    assert "README.md:2: a Hugging Face token" in str(raised.value)
    assert HUB not in str(raised.value)
