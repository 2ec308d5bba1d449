"""Other people's programs against the loopback Hub: `hf`, npm's client, transformers and peft."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import HUB_PORT, OfHub
from tests.loopback_hub import Hub, serving
from tests.support.called import fork

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
HF = Path(sys.executable).parent / "hf"
CLIENT = Path(__file__).parent / "hub_client"
TOKEN = "hf_canary"
XET = ("POST /v1/xorbs/", "POST /v1/shards", "GET /v2/reconstructions/", "GET /xorb/")
ANSWER = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("me/base")
model = AutoModelForCausalLM.from_pretrained("me/base", dtype=torch.float32).eval()
ids = tokenizer("The answer is", return_tensors="pt").input_ids
with torch.no_grad():
    base = model(ids).logits[0, -1].tolist()
    adapted = PeftModel.from_pretrained(model, "me/adapter", revision="v1")
    tuned = adapted(ids).logits[0, -1].tolist()
print(json.dumps([base, tuned]))
"""


HERE = """
import json, sys
from pathlib import Path
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from tests.support import tiny_models
base = tiny_models.save(Path("base"), "llama")
adapter = tiny_models.save_adapter(Path("adapter"), base)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
ids = tiny_models.tokenizer()("The answer is", return_tensors="pt").input_ids
with torch.no_grad():
    here = [model(ids).logits[0, -1].tolist()]
    here.append(PeftModel.from_pretrained(model, adapter)(ids).logits[0, -1].tolist())
print(json.dumps(here))
"""


@contextmanager
def process(root: Path, *arguments: str) -> Iterator[str]:
    """Run the Hub as a process of its own; gives its endpoint."""
    command = [sys.executable, "-m", "tests.loopback_hub", str(root), *arguments]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    try:
        yield started.stdout.readline().strip()
    finally:
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=20) == 0
        started.stdout.close()


def environment(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    """What a client's process is told; its cache is its own."""
    named = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return {**os.environ, **named, "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def hf(endpoint: str, home: Path, *arguments: str | Path, **more: str) -> tuple[int, str]:
    done = subprocess.run(
        [HF, *map(str, arguments)],
        env=environment(endpoint, home, **{"HF_TOKEN": TOKEN, **more}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def pushed_folder(folder: Path) -> dict[str, bytes]:
    made = {
        "README.md": b"---\nlicense: mit\n---\n# A card\n",
        "large.safetensors": random.Random(0).randbytes(11_000_000),
        "small.safetensors": random.Random(1).randbytes(500),
    }
    folder.mkdir()
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return made


@pytest.mark.parametrize("disabled", ["1", "0"], ids=["lfs", "xet"])
def test_hf_uploads_and_downloads(tmp_path: Path, disabled: str) -> None:
    wanted = pushed_folder(tmp_path / "made")
    off = {"HF_HUB_DISABLE_XET": disabled}
    with process(tmp_path / "hub", "--token", f"me:write:{TOKEN}") as endpoint:
        code, said = hf(
            endpoint, tmp_path / "a", "upload", "me/model", tmp_path / "made", "--private", **off
        )
        assert code == 0, said
        code, said = hf(
            endpoint, tmp_path / "b", "download", "me/model", "--local-dir", tmp_path / "got", **off
        )
        assert code == 0, said
        code, said = hf(endpoint, tmp_path / "c", "download", "me/model", HF_TOKEN="")
        assert code != 0
        assert "Traceback" not in said
    hub = Hub(tmp_path / "hub")
    assert hub.repository("me/model").private
    assert {name: (tmp_path / "got" / name).read_bytes() for name in wanted} == wanted
    assert {name: hub.files("me/model")[name] for name in wanted} == wanted
    used = [any(part in one for one in hub.asked) for part in XET]
    assert used == [disabled == "0"] * len(XET)
    assert TOKEN not in hub.log_file.read_text("utf-8")


def test_hf_gets_through_faults_in_the_end(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "w.safetensors").write_bytes(random.Random(2).randbytes(30_000))
    hub = Hub(tmp_path / "hub")
    hub.add_token(TOKEN)
    hub.create("me/model", private=True)
    off = {"HF_HUB_DISABLE_XET": "1"}
    with process(tmp_path / "hub", "--faults", "0.3", "--seed", "1") as endpoint:
        for arguments in (("upload", "me/model", made), ("download", "me/model")):
            codes = [hf(endpoint, tmp_path / "home", *arguments, **off)[0]]
            while codes[-1] and len(codes) < 20:
                codes.append(hf(endpoint, tmp_path / "home", *arguments, **off)[0])
            assert codes[-1] == 0
    after = Hub(tmp_path / "hub")
    assert after.files("me/model")["w.safetensors"] == (made / "w.safetensors").read_bytes()
    assert after.repository("me/model").private
    assert sum("fault" in one for one in after.requests) > 3


@pytest.mark.parametrize("transfer", ["lfs", "xet", "xet refused"])
def test_the_npm_client_sees_the_same(tmp_path: Path, transfer: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (CLIENT / "node_modules" / "@huggingface" / "hub").is_dir():
        pytest.skip("@huggingface/hub is not installed: `npm ci` in tests/e2e/hub_client")
    wanted = pushed_folder(tmp_path / "made")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in wanted.items()}
    with serving(tmp_path / "hub", tokens={TOKEN: "me:write"}) as hub:
        hub.page_size = 2
        hub.xet = transfer != "xet refused"
        arguments = [hub.endpoint, TOKEN, "me/model", str(tmp_path / "made"), transfer[:3]]
        done = subprocess.run(
            [node, CLIENT / "client.mjs", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (done.stderr, hub.requests[-1])
        seen = json.loads(done.stdout)
        kept = {name: hub.files("me/model")[f"in a folder/{name}"] for name in wanted}
        assert kept == wanted
        assert (
            seen["main"] == seen["pushed"] == hub.head("me/model") == hub.head("me/model", "push")
        )
        assert seen["proposed"] == f"{hub.endpoint}/me/model/discussions/1"
    assert (seen["user"], seen["private"]) == ("me", True)
    assert (seen["again"], seen["stranger"], seen["stale"]) == (409, 401, 412)
    large = {f"in a folder/{name}": digests[name] for name in wanted if name != "README.md"}
    small = {"in a folder/README.md": None, ".gitattributes": None}
    assert seen["listed"] == large | small
    assert (seen["infos"], seen["there"], seen["absent"]) == (["directory"], True, None)
    assert seen["downloaded"] == digests
    assert seen["slice"] == 10
    parts = sum("/upload/" in one for one in hub.asked)
    used = [any(part in one for one in hub.asked) for part in XET]
    assert (parts, used) == ((0, [True] * 4) if transfer == "xet" else (4, [False] * 4))


def test_model_and_adapter_load_in_a_new_process_with_an_empty_cache(
    tmp_path: Path, of_hub: OfHub
) -> None:
    made = fork(["-c", HERE], cwd=tmp_path, loaded=of_hub.loaded)
    assert made.code == 0, made.err[-3000:]
    here = json.loads(made.out.splitlines()[-1])
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "me/base"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with serving(tmp_path / "hub", tokens={TOKEN: "me:read"}, port=HUB_PORT) as hub:
        for name, folder in (("me/base", base), ("me/adapter", adapter)):
            hub.add_folder(name, folder, private=True)
        repository = hub.repository("me/adapter")
        repository.branches["v1"] = repository.branches["main"]
        told = environment(hub.endpoint, of_hub.emptied(), HF_TOKEN=TOKEN)
        done = fork(["-c", ANSWER], environment=told, loaded=of_hub.loaded)
        assert done.code == 0, done.err[-3000:]
        fetched = {one["path"].partition("?")[0] for one in hub.requests if one["status"] == 302}
    assert len([one for one in fetched if one.endswith(".safetensors")]) == 2
    there = json.loads(done.out.splitlines()[-1])
    assert here[0] != here[1]
    assert there == here
