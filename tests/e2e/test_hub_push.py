"""Push and pull as a user does, against the loopback Hub: complete, private, and only once.

The long ones (`./just e2e-hub`) do it with 30% of the requests failing, and killed 50 times.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from pipeline.workspace.workspace import OpenWorkspace
from registry.catalog.catalog import Catalog
from registry.models.changed import publish_changed, write_changed
from registry.models.load import nano_folder
from registry.publish.parcel import ALLOWED, CARD, RECORD, SIGNATURE
from registry.publish.secrets import _lines
from tests.e2e.conftest import HUB_PORT, PROGRAM, OfHub, nano_adapter
from tests.loopback_hub import Faults, Hub, serving
from tests.support.called import Called, fork, forked
from tests.support.card_code import example_code
from tests.support.loaded import Loaded, light

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "hf_" + "CanaryThatMustNotLeaveHere99"
REPO = "me/pushed"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving(tmp_path / "hub", tokens={CANARY: "me:write"}, port=HUB_PORT) as served:
        yield served


@pytest.fixture
def workspace(tmp_path: Path, quickstart: Path) -> Path:
    return Path(shutil.copytree(quickstart, tmp_path / "workspace"))


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": CANARY,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
    }


def call(hub: Hub, workspace: Path, *arguments: str, loaded: Loaded = light) -> Called:
    told = environment(hub, workspace.parent / "cache")
    done = forked(*arguments, "-C", workspace, timeout=600, loaded=loaded, **told)
    assert CANARY not in done.out + done.err
    assert "Traceback" not in done.err
    return done


def answer(hub: Hub, workspace: Path, *arguments: str, loaded: Loaded = light) -> Any:
    done = call(hub, workspace, *arguments, "--json", loaded=loaded)
    assert done.code == 0, done.err
    return done.json()


def check_pushed(hub: Hub, workspace: Path, kind: str = "adapter", repo: str = REPO) -> None:
    """What main holds are the object's files, byte for byte, a card and a record."""
    files = hub.files(repo)
    push, *_ = Catalog(workspace / ".gapmend").query(
        "SELECT object_id, revision FROM pushes WHERE repo = ? ORDER BY created_at DESC", [repo]
    ).rows  # fmt: skip
    folder = workspace / ".gapmend" / "objects" / kind / push[0]
    assert set(files) - {CARD, RECORD, SIGNATURE, ".gitattributes"} == {
        path.name for path in folder.iterdir() if path.name in ALLOWED["adapter"] + ALLOWED["model"]
    }
    for path in set(files) - {CARD, RECORD, SIGNATURE, ".gitattributes"}:
        assert files[path] == (folder / path).read_bytes(), path
    assert hub.head(repo, push[0]) == hub.head(repo) == push[1]


def check_no_canary(hub: Hub, workspace: Path) -> None:
    """The token is in nothing that the Hub keeps or that we keep, decoded; a planted one is."""
    kept: list[tuple[str, Path | bytes]] = [(one.path, one.content) for one in hub.contents()]
    kept += [(where, text.encode()) for _, where, text in hub.texts()]
    kept += [
        (path.name, path if path.suffix in {".parquet", ".safetensors"} else path.read_bytes())
        for path in (workspace / ".gapmend").rglob("*")
        if path.is_file()
    ]
    manifests = Catalog(workspace / ".gapmend").query("SELECT manifest FROM objects").rows
    kept.append(("catalog", "\n".join(row[0] for row in manifests).encode()))
    assert not [name for name, content in kept if holds(name, content)]
    assert holds("planted", f"x {CANARY} y".encode())


def holds(name: str, content: Path | bytes) -> bool:
    return any(CANARY in line for _, line in _lines(name, content))


def test_a_dry_run_shows_everything_and_sends_nothing(hub: Hub, workspace: Path) -> None:
    shown = answer(hub, workspace, "push", "champion", "--repo", REPO, "--dry-run")
    assert shown["private"]
    assert shown["commit"] is None
    assert {one["path"] for one in shown["files"]} >= {"adapter_model.safetensors", CARD, RECORD}
    for told in ("license: apache-2.0", "What it lost (test)", "sentiment", "library_name: peft"):
        assert told in shown["card"]
    assert str(Path.home()) not in json.dumps(shown)
    assert not hub.requests


def test_pushed_once_pulled_the_same(
    hub: Hub, workspace: Path, quickstart: Path, of_hub: OfHub
) -> None:
    keys = workspace.parent / "keys"
    assert forked("sign", "--new-key", keys).code == 0
    first = answer(hub, workspace, "push", "--repo", REPO)
    assert SIGNATURE not in hub.files(REPO, first["object_id"])
    answer(hub, workspace, "sign", "champion", "--key", str(keys / "gapmend-signing.key"))
    assert not answer(hub, workspace, "push", "--repo", REPO)["already"]
    assert SIGNATURE in hub.files(REPO, first["object_id"])  # its tag moved on
    assert hub.repository(REPO).private
    check_pushed(hub, workspace)
    commits = len(hub.repository(REPO).commits)
    assert f"already there: {first['object_id'][:12]}" in call(
        hub, workspace, "push", "champion", "--repo", REPO
    ).out.replace("\n", " ")
    assert len(hub.repository(REPO).commits) == commits

    other = workspace.parent / "other"
    other.mkdir()
    shutil.copytree(quickstart / "data", other / "data")
    shutil.copy(quickstart / "gapmend.yaml", other)
    public = ("--key", str(keys / "gapmend-signing.pub"))
    pulled = answer(hub, other, "pull", REPO, *public, loaded=of_hub.loaded)
    assert pulled["signed_by"] == "gapmend-signing.pub"
    assert (pulled["object_id"], pulled["same"]) == (first["object_id"], True)
    answer(hub, workspace, "push", "intent", "--repo", "me/rows", "--public")
    rows = answer(hub, other, "pull", "datasets/me/rows")
    assert rows["same"]
    assert not hub.repository("me/rows", "dataset").private
    check_no_canary(hub, workspace)
    check_no_canary(hub, other)


def test_another_visibility_is_refused_before_a_byte_is_sent(hub: Hub, workspace: Path) -> None:
    hub.create(REPO, private=False)
    before = dict(hub.files(REPO))
    refused = call(hub, workspace, "push", "--repo", REPO)
    assert refused.code == 2
    assert "is public on the Hub, and private was asked for" in refused.err
    assert hub.files(REPO) == before
    assert not [one for one in hub.asked if "preupload" in one or "/commit/" in one]


def test_a_request_leaves_main_where_it_is(hub: Hub, workspace: Path) -> None:
    hub.create(REPO, private=True)
    head = hub.head(REPO)
    made = answer(hub, workspace, "push", "--repo", REPO, "--pr")
    assert made["request"] == 1
    assert hub.head(REPO) == head
    assert "adapter_model.safetensors" in hub.files(REPO, "refs/pr/1")
    call(hub, workspace, "push", "--repo", REPO)  # finds it, and merges it
    assert len(hub.repository(REPO).discussions) == 1
    assert "adapter_model.safetensors" in hub.files(REPO)


def test_a_strangers_request_is_not_taken_for_ours(hub: Hub, workspace: Path) -> None:
    """Anybody may open one on a public repository: with the same files, and one more."""
    answer(hub, workspace, "push", "--repo", REPO, "--pr", "--public")
    api = HfApi(endpoint=hub.endpoint, token=CANARY)
    files = {p: c for p, c in hub.files(REPO, "refs/pr/1").items() if p != ".gitattributes"}
    files["adapter_model.bin"] = b"a pickle"
    added = [CommitOperationAdd(path, content) for path, content in files.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        api.create_commit(REPO, added, commit_message="the same", create_pr=True)
        api.change_discussion_status(REPO, 1, "closed")
    answer(hub, workspace, "push", "--repo", REPO, "--public")
    assert "adapter_model.bin" not in hub.files(REPO)
    assert "adapter_model.safetensors" in hub.files(REPO)


def test_a_secret_in_a_name_is_found_in_the_card(hub: Hub, workspace: Path) -> None:
    spec, name = workspace / "gapmend.yaml", CANARY[:-2]
    text = spec.read_text("utf-8").replace("  intent:    {path", f"  {name}: {{path")
    text = text.replace("data: intent\n", f"data: {name}\n").replace(", intent]", f", {name}]")
    spec.write_text(text, "utf-8")
    refused = call(hub, workspace, "push", "--repo", REPO)
    assert refused.code == 2
    assert "README.md" in refused.err
    assert "a Hugging Face token" in refused.err
    assert not hub.requests


def test_what_is_pushed_loads_as_its_card_says(hub: Hub, tmp_path: Path, of_hub: OfHub) -> None:
    """An adapter of a Hub base and its merge, in new processes with empty caches."""
    commit = hub.add_folder("me/nano", nano_folder())
    workspace = tmp_path / "workspace"
    assert forked("init", workspace).code == 0
    spec = workspace / "gapmend.yaml"
    base = f"{{model: me/nano, revision: {commit}}}"
    spec.write_text(spec.read_text("utf-8").replace("{model: nano}", base), "utf-8")
    theirs = nano_adapter(tmp_path / "theirs", of_hub.loaded)
    (theirs / "README.md").write_text("---\nlicense: mit\n---\n")
    config = theirs / "adapter_config.json"
    named = json.loads(config.read_text("utf-8")) | {"base_model_name_or_path": "me/nano"}
    config.write_text(json.dumps(named), "utf-8")

    made = answer(hub, workspace, "adapter", "import", str(theirs), loaded=of_hub.loaded)
    merged = answer(hub, workspace, "merge", "--adapter", made["object_id"], loaded=of_hub.loaded)
    for thing, repo in ((made["object_id"], "me/adapter"), (merged["model_id"], "me/merged")):
        answer(hub, workspace, "push", thing, "--repo", repo)
        card = hub.files(repo)[CARD].decode()
        found = run_card(hub, of_hub, card, theirs)
        assert found["difference"] < 1e-4, (repo, found)
        assert found["base"] > 1e-2


COMPARE = """
import json, sys, torch
from pathlib import Path
from peft import PeftModel as P
from transformers import AutoModelForCausalLM as M
asked = torch.tensor([[5, 6, 7, 8, 9, 10]])
plain = M.from_pretrained(sys.argv[1], dtype="float32")
before = plain(asked).logits
trained = P.from_pretrained(plain, sys.argv[2])(asked).logits
found = model(asked).logits
print(json.dumps({"difference": float((found - trained).abs().max()),
                  "base": float((found - before).abs().max())}))
"""


def run_card(hub: Hub, of_hub: OfHub, card: str, theirs: Path) -> dict[str, float]:
    """Run the card's code, then compare its model with base and adapter as they were trained."""
    code = ["-c", example_code(card) + COMPARE, str(nano_folder()), str(theirs)]
    told = environment(hub, of_hub.emptied())
    done = fork(code, environment=told, loaded=of_hub.loaded)
    assert done.code == 0, done.err[-2000:]
    assert list(of_hub.home.rglob("*.safetensors"))  # from the Hub, not from elsewhere
    return dict(json.loads(done.out.splitlines()[-1]))


@pytest.mark.soak
def test_the_quickstarts_champion_and_its_merge_load_elsewhere(
    hub: Hub, workspace: Path, of_hub: OfHub
) -> None:
    """From the Hub, in new processes with empty caches: the trained adapter's logits."""
    catalog = Catalog(workspace / ".gapmend")
    ((adapter_id, model_id),) = catalog.query(
        "SELECT target, (SELECT child FROM edges JOIN objects ON objects.id = child"
        " WHERE parent = target AND kind = 'model' LIMIT 1)"
        " FROM aliases WHERE name = 'champion' AND current"
    ).rows
    for thing, repo in ((adapter_id, "me/champion"), (model_id, "me/merged")):
        answer(hub, workspace, "push", thing, "--repo", repo)
        # nano is on no Hub: the card says that its folder belongs there.
        card = hub.files(repo)[CARD].decode().replace('("nano"', f"({str(nano_folder())!r}")
        trained = workspace / ".gapmend" / "objects" / "adapter" / adapter_id
        found = run_card(hub, of_hub, card, trained)
        assert found["difference"] < 1e-4, (repo, found)
        print(f"{repo}: {found}")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_with_a_third_of_the_requests_failing(tmp_path: Path, quickstart: Path, seed: int) -> None:
    workspace = Path(shutil.copytree(quickstart, tmp_path / "workspace"))
    faults = Faults(probability=0.3, seed=seed)
    with serving(tmp_path / "hub", faults=faults, tokens={CANARY: "me:write"}) as hub:
        calls = 0
        while call(hub, workspace, "push", "--repo", REPO).code != 0:
            calls += 1
            assert calls < 5
        faults.probability = 0.0
        check_pushed(hub, workspace)
        assert hub.repository(REPO).private
        check_no_canary(hub, workspace)
        failed = Counter(one.get("fault") for one in hub.requests)
        print(f"seed {seed}: {sum(failed.values())} requests, {failed}, {calls + 1} calls")


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_killed_at_fifty_instants(tmp_path: Path, quickstart: Path) -> None:
    """Each push is killed at a random instant; the next call finishes it."""
    ready = Path(shutil.copytree(quickstart, tmp_path / "ready"))
    draw = random.Random(5)
    with serving(tmp_path / "hub", tokens={CANARY: "me:write"}) as hub:
        assert call(hub, ready, "push", "--repo", "me/whole").code == 0
        whole = len(hub.requests)
        slow = hub.faults.add("slow", seconds=0.03, count=0)
        where: Counter[int] = Counter()
        for number in range(50):
            repo = f"me/killed-{number}"
            asked, until = len(hub.requests), draw.randrange(whole + 1)
            slow.count = 10**6
            running = subprocess.Popen(
                [PROGRAM, "push", "--repo", repo, "-C", ready],
                env={**os.environ, **environment(hub, tmp_path / "cache")},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while running.poll() is None and len(hub.requests) - asked < until:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.05))
            running.kill()
            running.wait()
            slow.count = 0
            where[len(hub.requests) - asked] += 1
            assert call(hub, ready, "push", "--repo", repo).code == 0
            check_pushed(hub, ready, repo=repo)
            assert hub.repository(repo).private
            assert len(hub.repository(repo).discussions) == 1
        check_no_canary(hub, ready)
        assert len(where) > whole / 2  # everywhere between the first request and the last
        print(f"killed after so many of {whole} requests: {dict(sorted(where.items()))}")


@pytest.mark.soak
def test_changed_tensors_load_as_their_card_says_and_come_back_the_same(
    hub: Hub, tmp_path: Path
) -> None:
    """What full training makes: pushed, loaded by its card in a new process, pulled elsewhere."""
    import torch

    workspace = tmp_path / "workspace"
    assert forked("init", workspace).code == 0
    noise = torch.Generator().manual_seed(0)
    ws = OpenWorkspace.open(workspace)
    loaded = ws.models.get("nano")
    own = dict(loaded.model.named_parameters())
    changed = {
        name: own[name].detach() + 0.1 * torch.randn(own[name].shape, generator=noise)
        for name in ("model.norm.weight", "model.layers.1.mlp.down_proj.weight")
    }
    write_changed(tmp_path / "changed", changed, {"method": "full"})
    ref = publish_changed(
        ws.store,
        tmp_path / "changed",
        base=loaded.identity,
        tokenizer=loaded.tokenizer,
        meta={"method": "full", "license": "mit"},
        parents=[],
    )
    ws.catalog.commit([ref])
    pushed = answer(hub, workspace, "push", ref.id, "--repo", "me/full")
    assert {one["path"] for one in pushed["files"]} >= {"changed.safetensors", "changed.json"}
    card = hub.files("me/full")[CARD].decode()
    code = example_code(card)
    asked = "\nimport torch; print(float(model(torch.tensor([[5, 6, 7]])).logits.double().sum()))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + asked],
        capture_output=True,
        text=True,
        check=True,
        env=environment(hub, tmp_path / "cache"),
    )
    loaded.use(ref.path)
    with torch.no_grad():
        expected = float(loaded.model(torch.tensor([[5, 6, 7]])).logits.double().sum())
    assert float(done.stdout.split()[-1]) == pytest.approx(expected, abs=1e-3)

    other = tmp_path / "other"
    assert forked("init", other).code == 0
    pulled = answer(hub, other, "pull", "me/full")
    assert (pulled["object_id"], pulled["same"]) == (ref.id, True)
