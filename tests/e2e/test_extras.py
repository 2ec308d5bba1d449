"""A verb whose extra isn't installed says in one line what installs it; others don't need it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.called import Called, fork, forked
from tests.support.loaded import with_models

if TYPE_CHECKING:
    from pathlib import Path

# As if these packages, and all that is in them, were not there: for `import` and for `find_spec`.
WITHOUT = """
import sys
gone = set(sys.argv.pop(1).split(","))
for name in [name for name in sys.modules if name.partition(".")[0] in gone]:
    del sys.modules[name]
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
from pipeline.cli.main import main
main()
"""
EXTRAS = "model_signing,OpenSSL,cryptography,openlineage,mergekit,vllm"


def without(modules: str, *arguments: str | Path) -> Called:
    """Call the command line in a process of its own, where these modules can't be found."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, modules, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return Called(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    done = forked("init", folder)
    assert done.code == 0, done.err
    return folder


MERGE = ("merge", "--adapter", "a", "--adapter", "b", "--method", "mergekit:breadcrumbs")


@pytest.mark.parametrize(
    ("extra", "module", "call"),
    [
        ("signing", "model_signing", ("sign", "--new-key", "keys")),
        ("signing", "OpenSSL", ("verify", ".", "--key", "nobody.pub", "--json")),
        ("signing", "cryptography", ("verify", ".", "--key", "nobody.pub")),
        ("openlineage", "openlineage", ("openlineage", "--json")),
        ("mergekit", "mergekit", MERGE),
        pytest.param("vllm", "vllm", ("check",), marks=pytest.mark.xdist_group("with models")),
    ],
)
def test_a_missing_extra_is_one_line(
    workspace: Path, extra: str, module: str, call: tuple[str, ...]
) -> None:
    if extra == "vllm":
        with (workspace / "gapmend.yaml").open("a", encoding="utf-8") as spec:
            spec.write("\nevals: {backend: vllm}\n")
    # Of these, `check` alone loads torch first; and nothing that is loaded has loaded vllm.
    if extra == "vllm":
        done = fork(["-c", WITHOUT, module, *call, "-C", str(workspace)], loaded=with_models)
    else:
        done = without(module, *call, "-C", workspace)
    assert done.code == 2, done.err
    (line,) = done.err.splitlines()
    assert f"needs the extra '{extra}', and {module}" in line
    assert f"pip install '.[{extra}]'" in line
    if "--json" in call:
        (said,) = done.out.splitlines()
        assert (json.loads(said)["kind"], json.loads(said)["exit_code"]) == ("machine", 2)
    else:
        assert done.out == ""


def test_what_blocks_a_module_lets_the_others_through(workspace: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert without("mergekit", "sign", "--new-key", keys, "-C", workspace).code == 0
    assert len(list(keys.iterdir())) == 2


def test_the_rest_needs_no_extra(workspace: Path) -> None:
    assert without("nothing_of_the_kind", "status", "-C", workspace).code == 0
    for call in (("check",), ("ingest",), ("status",)):
        done = without(EXTRAS, *call, "-C", workspace)
        assert done.code == 0, done.err
