"""How far a download and an upload have come, as the Hub's own client tells it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from registry.hub.transfer import together
from tests.loopback_hub import serving
from tests.support.called import fork

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 17 << 20  # more than goes together with others
PROGRAM = """
import hashlib, json, sys
from pathlib import Path
from registry.hub.repository import ParcelFile, Repository
folder = Path(sys.argv[1])
repository, sent, there = Repository("me/it"), [], []
repository.create(private=True)
files = []
for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    blob = hashlib.sha1(f"blob {len(data)}\\0".encode() + data).hexdigest()
    files.append(ParcelFile(path.name, path, len(data), hashlib.sha256(data).hexdigest(), blob))
number = repository.upload(files, [], "files", sent.append)
repository.merge_request(number)
head = repository.commit_of("main")
found = repository.download(head, ["*"], lambda done, of: there.append((done, of)))
same = all((found / one.path).read_bytes() == one.content.read_bytes() for one in files)
print(json.dumps([sent, there, same]))
"""


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1, 2, 3], [([0, 1, 2], 6)]),
        ([1, SIZE, 2, SIZE + 1], [([0, 2], 3), ([1], SIZE), ([3], SIZE + 1)]),
        ([SIZE], [([0], SIZE)]),
        ([], []),
    ],
)
def test_large_files_go_alone(sizes: list[int], expected: list[tuple[list[int], int]]) -> None:
    assert list(together(range(len(sizes)), sizes)) == expected


def test_bytes_are_told_of_both_ways(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(b"\x00\xff" * (SIZE // 2))
    (files / "config.json").write_text("{}")
    token = "hf_" + "x" * 34
    with serving(tmp_path / "hub", tokens={token: "me:write"}) as hub:
        told = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": token,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
        }
        done = fork(["-c", PROGRAM, str(files)], environment=told)
    assert done.code == 0, done.err
    sent, there, same = json.loads(done.out)
    assert same
    assert sent == [2, SIZE]
    assert max(here for here, _ in there) >= SIZE
    assert all(here <= of for here, of in there if of)
