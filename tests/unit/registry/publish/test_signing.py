"""Signing and verifying with a local key: what holds, what doesn't, and no network."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.verbs import sign as stage
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import GateRefusedError, UserError
from registry.publish.signing import NOT_SIGNED, SIGNATURE, KeyPair, key_id, make_key, sign, verify


@pytest.fixture(autouse=True)
def _no_network(monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("signing went to the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@dataclass
class Signed:
    folder: Path
    keys: KeyPair
    other: KeyPair

    @property
    def signature(self) -> Path:
        return self.folder / SIGNATURE

    def check(self) -> dict[str, str]:
        return verify(self.folder, self.signature, self.keys.public).files


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Signed:
    root = tmp_path_factory.mktemp("signed")
    folder = root / "model"
    (folder / "additional_chat_templates").mkdir(parents=True)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ tools }}")
    (folder / "manifest.json").write_text("{}")
    keys, other = make_key(root / "keys"), make_key(root / "other")
    sign(folder, keys.private, folder / SIGNATURE)
    return Signed(folder, keys, other)


@pytest.fixture
def signed(made, tmp_path) -> Signed:
    """A copy under another name, to spoil."""
    return Signed(Path(shutil.copytree(made.folder, tmp_path / "moved")), made.keys, made.other)


def test_a_signature_holds_where_the_folder_was_moved_to(signed) -> None:
    found = verify(signed.folder, signed.signature, signed.keys.public)
    names = ["additional_chat_templates/tool.jinja", "config.json", "model.safetensors"]
    assert list(found.files) == names
    assert found.ignored == ("model.sig", "manifest.json")
    assert found.key == key_id(signed.keys.private) == key_id(signed.keys.public)


def test_the_private_key_is_its_owners_alone_and_none_is_overwritten(signed) -> None:
    assert signed.keys.private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError, match="there is a key already"):
        make_key(signed.keys.private.parent)


def test_the_stores_manifest_is_not_covered_by_rule(signed) -> None:
    (signed.folder / "manifest.json").write_text('{"other": 1}')
    assert "manifest.json" not in signed.check()


def _change(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": 2}')


def _flip_one_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def _swap(folder: Path) -> None:
    one, two = folder / "config.json", folder / "model.safetensors"
    one_bytes = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(one_bytes)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_change, "changed: config.json$"),
        (_flip_one_bit, "changed: model.safetensors$"),
        (_swap, "changed: config.json, model.safetensors$"),
        (lambda f: (f / "config.json").unlink(), "missing: config.json$"),
        (lambda f: (f / "added.py").write_text(""), "not signed: added.py$"),
        (lambda f: (f / ".gitignore").write_text(""), "not signed: .gitignore$"),
        (
            lambda f: (f / "additional_chat_templates" / SIGNATURE).write_text(""),
            "not signed: additional_chat_templates/model.sig$",
        ),
    ],
)
def test_what_is_not_as_it_was_signed_is_named(signed, spoil: Callable[[Path], Any], said) -> None:
    spoil(signed.folder)
    with pytest.raises(GateRefusedError, match=said):
        signed.check()


def test_a_signature_that_leaves_out_more_than_the_rule_does_is_refused(signed) -> None:
    from model_signing import hashing, signing

    left_out = hashing.Config().set_ignored_paths(paths=["model.safetensors", *NOT_SIGNED])
    config = signing.Config().use_elliptic_key_signer(private_key=signed.keys.private)
    config.set_hashing_config(left_out).sign(signed.folder, signed.signature)
    with pytest.raises(GateRefusedError, match=r"not signed: model\.safetensors$"):
        signed.check()


def test_the_librarys_own_program_reads_the_signature(signed) -> None:
    paths = [signed.folder, "--signature", signed.signature, "--public_key", signed.keys.public]
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", "verify", "key", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "Verification succeeded")


def test_a_link_is_refused(signed) -> None:
    (signed.folder / "config.json").unlink()
    (signed.folder / "config.json").symlink_to(signed.keys.public)
    with pytest.raises(UserError, match="a link can't be signed"):
        signed.check()


def test_another_key_verifies_nothing(signed) -> None:
    with pytest.raises(GateRefusedError, match="signed with another key"):
        verify(signed.folder, signed.signature, signed.other.public)
    bundle = json.loads(signed.signature.read_text())
    del bundle["verificationMaterial"]["publicKey"]["hint"]  # nothing says whose it is
    signed.signature.write_text(json.dumps(bundle))
    assert signed.check()
    with pytest.raises(GateRefusedError, match="not by this key"):
        verify(signed.folder, signed.signature, signed.other.public)


def _bundle(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda bundle: json.dumps(bundle | changes)


def _without_signatures(bundle: dict[str, Any]) -> str:
    bundle["dsseEnvelope"]["signatures"] = []
    return json.dumps(bundle)


@pytest.mark.parametrize(
    "write",
    [
        lambda _: "",
        lambda _: "\x00\x01",
        lambda _: "[]",
        _bundle(dsseEnvelope={"payload": "!!"}),
        _bundle(verificationMaterial={}),
        _bundle(mediaType="application/json"),
        _without_signatures,
    ],
    ids=["empty", "bytes", "list", "payload", "material", "media", "signatures"],
)
def test_a_malformed_signature_is_one_line(signed, write) -> None:
    bundle = json.loads(signed.signature.read_text())
    signed.signature.write_text(write(bundle))
    with pytest.raises(UserError, match=r"model\.sig: not a signature") as error:
        signed.check()
    assert "\n" not in str(error.value)


def test_a_changed_statement_is_refused(signed) -> None:
    bundle = json.loads(signed.signature.read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"].pop()
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    bundle["dsseEnvelope"]["payload"] = payload
    signed.signature.write_text(json.dumps(bundle))
    with pytest.raises(GateRefusedError, match="not by this key, or was changed"):
        signed.check()


def test_what_is_no_key_is_one_line(signed, tmp_path) -> None:
    with pytest.raises(UserError, match="no key here"):
        verify(signed.folder, signed.signature, tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="not a key"):
        verify(signed.folder, signed.signature, tmp_path / "text")
    with pytest.raises(UserError, match="not a key"):
        sign(signed.folder, signed.keys.public, signed.signature)
    with pytest.raises(UserError, match="no signature here"):
        verify(signed.folder, tmp_path / SIGNATURE, signed.keys.public)


@pytest.fixture
def ws(tmp_path) -> OpenWorkspace:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "gapmend.yaml").write_text(
        "bases: {nano: {model: nano}}\n"
        "datasets: {d: {path: d.csv, columns: {input: a, output: b}}}\n"
        "capabilities: {c: {data: d, answer: exact, prompts: {zero_shot: '{input}'}, goal: 0.5}}\n"
        "train: {base: nano, pool: [d]}\n"
    )
    return OpenWorkspace.open(tmp_path / "ws")


def _model(ws: OpenWorkspace) -> str:
    with ws.store.draft() as draft:
        (draft / "config.json").write_text("{}")
        made = ws.store.put("model", draft, identity={"test": 1})
    ws.catalog.commit([made])
    return made.id


def test_an_object_is_signed_beside_itself_and_verified_by_id(ws, made) -> None:
    thing = _model(ws)
    with pytest.raises(UserError, match="is not signed"):
        stage.verify(ws, thing, made.keys.public)
    before = {p.name for p in ws.store.get("model", thing).path.iterdir()}
    first = stage.sign(ws, Ui(as_json=True), thing[:12], made.keys.private)
    again = stage.sign(ws, Ui(as_json=True), thing, made.keys.private)
    assert (first.cached, again.cached) == (False, True)
    assert first.signature_id == again.signature_id
    assert {p.name for p in ws.store.get("model", thing).path.iterdir()} == before
    assert first.ignored == ["manifest.json"]
    parents = {p.id for p in ws.catalog.manifest(first.signature_id).parents}
    assert thing in parents
    assert list(stage.verify(ws, thing, made.keys.public).files) == ["config.json"]
    with pytest.raises(GateRefusedError, match="signed with another key"):
        stage.verify(ws, thing, made.other.public)
    everything = json.dumps(
        [one.as_json() for kind in ("run", "signature") for one in ws.catalog.committed(kind)]
    )
    assert str(made.keys.private.parent) not in everything


def test_an_object_that_was_changed_is_refused(ws, made) -> None:
    thing = _model(ws)
    stage.sign(ws, Ui(as_json=True), thing, made.keys.private)
    path = ws.store.get("model", thing).path / "config.json"
    path.chmod(0o644)
    path.write_text('{"a": 1}')
    with pytest.raises(GateRefusedError, match=r"changed: config\.json"):
        stage.verify(ws, thing, made.keys.public)


def test_a_plain_folder_needs_no_workspace(signed) -> None:
    assert stage.verify(None, str(signed.folder), signed.keys.public).files
    with pytest.raises(UserError, match="no folder"):
        stage.verify(None, "abcdef", signed.keys.public)
