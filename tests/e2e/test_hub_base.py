"""A base named by its Hub id: fetched by the real client from a Hub on the loopback device."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import HUB_PORT, OfHub
from tests.loopback_hub import serving
from tests.support.called import Called, fork, forked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.loopback_hub import Hub

ROOT = Path(__file__).resolve().parents[2]
NANO_FILES = ("config.json", "generation_config.json", "model.safetensors", "chat_template.jinja")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


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
    with serving(tmp_path / "hub", port=HUB_PORT) as served:
        served.add_folder("me/small", repository)
        served.add_folder("me/pickled", pickled)
        yield served


@pytest.fixture
def cache(of_hub: OfHub) -> Path:
    return of_hub.emptied()


def call(hub: Hub, of_hub: OfHub, folder: Path, model: str, *arguments: str) -> Called:
    """Call gapmend in a small workspace whose base is this model of the Hub."""
    workspace = folder / "workspace"
    if not workspace.exists():
        shutil.copytree(ROOT / "pipeline" / "workspace" / "starter", workspace)
    spec = (ROOT / "pipeline" / "workspace" / "starter" / "gapmend.yaml").read_text("utf-8")
    changed = spec.replace("{model: nano}", f"{{model: {model}}}")
    changed = changed.replace("goal: 0.90", "goal: 0.90\n    limit: 12")
    assert changed != spec
    (workspace / "gapmend.yaml").write_text(changed, "utf-8")
    told = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(of_hub.home), "HF_HUB_OFFLINE": "0"}
    asked: tuple[str | Path, ...] = (*arguments, "-C", workspace, "--json")
    return forked(*asked, timeout=300, loaded=of_hub.loaded, **told)


@pytest.mark.usefixtures("cache")
def test_a_base_of_the_hub_goes_through_the_same_code(
    hub: Hub, of_hub: OfHub, tmp_path: Path
) -> None:
    checked = call(hub, of_hub, tmp_path, "me/small", "check")
    assert checked.code == 0, (checked.err, hub.requests)
    base = checked.json()["bases"][0]["identity"]
    assert base["source"] == f"me/small@{hub.head('me/small')}"
    assert base["parameters"] == 2_607_168
    fetched = [one for one in hub.requests if "filename=model.safetensors" in one["path"]]
    assert fetched
    assert sum(one["bytes"] for one in fetched) < 500_000  # the header, of 5.2 MB
    found = call(hub, of_hub, tmp_path, "me/small", "gap")
    assert found.code == 0, found.err
    assert found.json()["findings"]
    second = [one for one in hub.requests if "consolidated" in one["path"] or "orig" in one["path"]]
    assert not second


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("model", "named"),
    [
        pytest.param("me/pickled", "safetensors", id="pickled weights alone"),
        pytest.param("me/absent", "me/absent", id="not there"),
    ],
)
def test_what_is_no_base_is_one_line(
    hub: Hub, of_hub: OfHub, tmp_path: Path, model: str, named: str
) -> None:
    refused = call(hub, of_hub, tmp_path, model, "check")
    assert refused.code == 2
    assert named in refused.err
    assert "Traceback" not in refused.err


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
    told = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache")}
    told |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def fetch() -> str:
        return fork(["-c", FETCH, str(tmp_path)], environment=told).err.strip()

    sent = rf"/resolve/.*/{name}|/cdn/"
    always = hub.faults.add("flip", "GET", sent, count=99)
    said = fetch()
    assert f"{name} comes with other bytes than the Hub lists" in said
    (kept,) = (tmp_path / "cache" / "hub").glob("models--me--small/snapshots/*")
    assert not (kept / name).exists()
    always.count = 1  # and then what it should be
    assert "other bytes" not in fetch()
    assert (kept / name).read_bytes() == (ROOT / "registry" / "nano" / name).read_bytes()
