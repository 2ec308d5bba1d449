"""What gapmend pushed comes back as it was, and a record that lies is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.ingest import ingest
from pipeline.merge import merge
from pipeline.verbs.pull import take
from pipeline.verbs.push import push
from pipeline.verbs.sign import sign
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import GateRefusedError, UserError
from registry.models.load import nano_folder
from registry.publish.signing import make_key
from registry.store.hashing import digest, file_digest
from registry.store.kinds import VersionMeta
from tests.support.tiny_models import save_adapter

STARTER = Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter"
UI = Ui(as_json=True)


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    root = tmp_path_factory.mktemp("sender")
    shutil.copytree(STARTER, root / "ws")
    ws = OpenWorkspace.open(root / "ws")
    theirs = save_adapter(root / "theirs", nano_folder())
    (theirs / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Theirs\n")
    made = take(ws, UI, str(theirs))
    merge(ws, UI, made.object_id)
    ingest(ws, UI)
    keys = make_key(root / "keys")
    sign(ws, UI, made.object_id, keys.private)
    return ws


@pytest.fixture
def receiver(tmp_path: Path) -> OpenWorkspace:
    shutil.copytree(STARTER, tmp_path / "ws")
    return OpenWorkspace.open(tmp_path / "ws")


def pushed(sender: OpenWorkspace, kind: str, folder: Path) -> Path:
    """The folder that a push would make on the Hub: made once, and copied."""
    once = sender.root.parent / f"pushed-{kind}"
    if not once.exists():
        make_parcel(sender, kind, once)
    return Path(shutil.copytree(once, folder))


def make_parcel(sender: OpenWorkspace, kind: str, folder: Path) -> None:
    from pipeline.verbs.push import _parcel

    (manifest,) = sender.catalog.committed(kind)
    folder.mkdir()
    with sender.store.draft() as scratch:
        for file in _parcel(sender, manifest, manifest.id, "me/it", scratch).files:
            (folder / file.path).parent.mkdir(exist_ok=True)
            content = file.content
            data = content if isinstance(content, bytes) else content.read_bytes()
            (folder / file.path).write_bytes(data)


def rewrite(folder: Path, **values: Any) -> None:
    """Write the record anew, with an id that fits what it says."""
    path = folder / "gapmend.json"
    record = json.loads(path.read_text("utf-8")) | values
    record["id"] = digest({"kind": record["kind"], "identity": record["identity"]})
    path.write_text(json.dumps(record), "utf-8")


def hashes(folder: Path, pattern: str = "*") -> dict[str, str]:
    files = (path for path in sorted(folder.rglob(pattern)) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in files
        if path.name not in {"gapmend.json", "README.md", "model.sig"}
    }


@pytest.mark.parametrize("kind", ["adapter", "model", "dataset_version"])
def test_it_comes_back_with_its_id(
    sender: OpenWorkspace, receiver: OpenWorkspace, tmp_path: Path, kind: str
) -> None:
    taken = take(receiver, UI, str(pushed(sender, kind, tmp_path / "it")))
    (manifest,) = sender.catalog.committed(kind)
    assert (taken.object_id, taken.same) == (manifest.id, True)
    if kind == "dataset_version":
        assert receiver.catalog.manifest(taken.object_id, VersionMeta).meta.name == "pulled/it"
    if kind == "adapter":  # its licence comes with it
        again = push(receiver, UI, taken.object_id, repo="me/again", dry=True)
        assert "license: cc-by-4.0" in again.card


def test_a_signature_covers_what_is_taken_in(
    sender: OpenWorkspace, receiver: OpenWorkspace, tmp_path: Path
) -> None:
    folder = pushed(sender, "adapter", tmp_path / "it")
    key = sender.root.parent / "keys" / "gapmend-signing.pub"
    assert take(receiver, UI, str(folder), key=key).signed_by == key.name
    other = load_file(folder / "adapter_model.safetensors")
    save_file({k: v * 3 for k, v in other.items()}, folder / "adapter_model.safetensors")
    rewrite(folder, files=hashes(folder))
    with pytest.raises(GateRefusedError, match=r"changed: adapter_model\.safetensors"):
        take(receiver, UI, str(folder), key=key)


def test_what_no_record_names_is_never_seen(
    sender: OpenWorkspace, receiver: OpenWorkspace, tmp_path: Path
) -> None:
    folder = pushed(sender, "model", tmp_path / "it")
    shutil.copy(sender.root.parent / "theirs" / "adapter_config.json", folder)
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    taken = take(receiver, UI, str(folder))
    names = {path.name for path in receiver.store.get("model", taken.object_id).path.iterdir()}
    assert names == {*hashes(sender.store.get("model", taken.object_id).path)}


def listed(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    record = json.loads((folder / "gapmend.json").read_text("utf-8"))
    files = hashes(folder)
    rewrite(folder, files=files, identity=record["identity"] | {"files": files})


def not_in_the_identity(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text("{}")
    rewrite(folder, files=hashes(folder))


def changed(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    given = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(given | values), "utf-8")
    consistent(folder)


def consistent(folder: Path) -> None:
    files = hashes(folder)
    record = json.loads((folder / "gapmend.json").read_text("utf-8"))
    rewrite(folder, files=files, identity=record["identity"] | {"files": files})


def nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[next(iter(weights))].view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    consistent(folder)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    consistent(folder)


def link(folder: Path) -> None:
    (folder / "config.json").rename(folder.parent / "elsewhere")
    (folder / "config.json").symlink_to(folder.parent / "elsewhere")


ESCAPE = "{{ ''.__class__.__mro__ }}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (listed, "is no file of a model"),
        (not_in_the_identity, "its files are not those that its identity names"),
        (nan, "has values that are not finite"),
        (no_weights, "a model without weights"),
        (link, "config.json is a link"),
        (lambda f: changed(f, "config.json", num_hidden_layers=9), "weights missing"),
        (lambda f: changed(f, "config.json", _attn_implementation="a/b"), "_attn_implementation"),
        (lambda f: changed(f, "config.json", num_attention_heads=0), "making a model of config.j"),
        (lambda f: changed(f, "config.json", auto_map={"x": "y"}), "auto_map makes the loader"),
        (lambda f: changed(f, "tokenizer_config.json", auto_map={"x": "y"}), "auto_map makes"),
        (lambda f: changed(f, "generation_config.json", custom_generate="x/y"), "custom_generate"),
        (lambda f: changed(f, "config.json", _name_or_path="/home/alice/x"), "config.json:"),
        (
            lambda f: changed(
                f, "tokenizer_config.json", chat_template=[{"name": "a", "template": ESCAPE}]
            ),
            "rendering the chat template fails: it reaches for __",
        ),
        (lambda f: (f / "gapmend.json").write_bytes(b"\xff"), "not a record of gapmend"),
        (lambda f: (f / "gapmend.json").write_text("[" * 10**5), "not a record of gapmend ("),
        (lambda f: rewrite(f, files=[]), "'files'"),
        (lambda f: rewrite(f, files={}), "'files': Dictionary should have at least 1 item"),
    ],
)
def test_a_model_that_lies_is_refused(
    sender: OpenWorkspace, receiver: OpenWorkspace, tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = pushed(sender, "model", tmp_path / "it")
    spoil(folder)
    with pytest.raises(UserError) as raised:
        take(receiver, UI, str(folder))
    assert message in str(raised.value)
    assert not receiver.catalog.committed("model")


@pytest.mark.parametrize("column", ["split", "meta", "position", "row_hash"])
def test_rows_that_lie_are_refused(
    sender: OpenWorkspace, receiver: OpenWorkspace, tmp_path: Path, column: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = pushed(sender, "dataset_version", tmp_path / "it")
    path = folder / "data" / "dev.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    worse = pa.array([None, *table[column].to_pylist()[1:]], table.schema.field(column).type)
    pq.write_table(table.set_column(place, column, worse), path)
    rewrite(folder, files=hashes(folder, "*.parquet"))
    with pytest.raises(UserError):
        take(receiver, UI, str(folder))
    assert not receiver.catalog.committed("dataset_version")
