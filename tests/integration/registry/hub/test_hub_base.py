"""A base named by its Hub id: fetched by the real client from a Hub on the loopback device."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.loopback_hub import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.loopback_hub import Hub

ROOT = Path(__file__).resolve().parents[4]
NANO_FILES = ("config.json", "generation_config.json", "model.safetensors", "chat_template.jinja")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PROGRAM = Path(sys.executable).parent / "gapmend"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    repository = tmp_path / "served"
    repository.mkdir()
    for name in (*NANO_FILES, *TOKENIZER_FILES):
        shutil.copy(ROOT / "registry" / "nano" / name, repository / name)
    (repository / "original").mkdir()
    for copy in ("consolidated.safetensors", "original/model.safetensors"):
        shutil.copy(repository / "model.safetensors", repository / copy)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(repository / "config.json", pickled / "config.json")
    (pickled / "pytorch_model.bin").write_bytes(b"a pickle")
    with serving(tmp_path / "hub") as served:
        served.add_folder("me/small", repository)
        served.add_folder("me/pickled", pickled)
        yield served


def call(hub: Hub, folder: Path, model: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call gapmend in a small workspace whose base is this model of the Hub."""
    workspace = folder / "workspace"
    if not workspace.exists():
        shutil.copytree(ROOT / "pipeline" / "workspace" / "starter", workspace)
    spec = (ROOT / "pipeline" / "workspace" / "starter" / "gapmend.yaml").read_text("utf-8")
    changed = spec.replace("{model: nano}", f"{{model: {model}}}")
    changed = changed.replace("goal: 0.90", "goal: 0.90\n    limit: 12")
    assert changed != spec
    (workspace / "gapmend.yaml").write_text(changed, "utf-8")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "0",
    }
    return subprocess.run(
        [PROGRAM, *arguments, "-C", str(workspace), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )


def test_a_base_of_the_hub_goes_through_the_same_code(hub: Hub, tmp_path: Path) -> None:
    checked = call(hub, tmp_path, "me/small", "check")
    assert checked.returncode == 0, (checked.stderr, hub.requests)
    base = json.loads(checked.stdout)["bases"][0]["identity"]
    assert base["source"] == f"me/small@{hub.head('me/small')}"
    assert base["parameters"] == 2_607_168
    fetched = [one for one in hub.requests if "filename=model.safetensors" in one["path"]]
    assert fetched
    assert sum(one["bytes"] for one in fetched) < 500_000  # the header, of 5.2 MB
    found = call(hub, tmp_path, "me/small", "gap")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["findings"]
    second = [one for one in hub.requests if "consolidated" in one["path"] or "orig" in one["path"]]
    assert not second


def test_only_pickled_weights_are_one_line(hub: Hub, tmp_path: Path) -> None:
    refused = call(hub, tmp_path, "me/pickled", "check")
    assert refused.returncode == 2
    assert "safetensors" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_repository_that_is_not_there_is_one_line(hub: Hub, tmp_path: Path) -> None:
    refused = call(hub, tmp_path, "me/absent", "check")
    assert refused.returncode == 2
    assert "me/absent" in refused.stderr
    assert "Traceback" not in refused.stderr


FETCH = """
import sys
from pathlib import Path
from registry.errors import UserError
from registry.hub.base import fetch_snapshot
try:
    fetch_snapshot("me/small", None, ["*.json", "model.safetensors"], "bases.b", Path(sys.argv[1]))
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])  # git's hash, and SHA-256
def test_a_corrupt_download_does_not_stay_in_the_cache(hub: Hub, tmp_path: Path, name: str) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache")}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def fetch() -> str:
        done = subprocess.run(
            [sys.executable, "-c", FETCH, str(tmp_path)],
            capture_output=True, text=True, check=False, env=environment, timeout=120,
        )  # fmt: skip
        return done.stderr.strip()

    sent = rf"/resolve/.*/{name}|/cdn/"
    always = hub.faults.add("flip", "GET", sent, count=99)
    said = fetch()
    assert f"{name} comes with other bytes than the Hub lists" in said
    (kept,) = (tmp_path / "cache" / "hub").glob("models--me--small/snapshots/*")
    assert not (kept / name).exists()
    always.count = 1  # and then what it should be
    assert "other bytes" not in fetch()
    assert (kept / name).read_bytes() == (ROOT / "registry" / "nano" / name).read_bytes()
