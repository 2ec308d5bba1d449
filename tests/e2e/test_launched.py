"""Two processes on one run, as accelerate and torchrun start them, over gloo on CPU."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from pipeline.workspace.workspace import OpenWorkspace
from registry.store.kinds import RunMeta
from tests.support.called import Called, fork, forked
from tests.support.loaded import with_models

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("with models")]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


PORT = free_port()
BIN = Path(sys.executable).parent
MAKE = """
import sys
from pathlib import Path
from tests.integration.pipeline.test_select_to_merge import make_workspace
make_workspace(Path(sys.argv[1]))
"""
SPEC = {
    "{model: base}": "{model: base, new_tokens: [positive]}",
    "rank: 4": "rank: 4, seed: 3",
    "epochs: 1, batch_tokens: 1024": "epochs: 1, batch_tokens: 512",
}
TORCHRUN = [BIN / "torchrun", "--nproc-per-node", "2", "--standalone", BIN / "gapmend"]
MACHINE = [
    *("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
    *("--dynamo_backend", "no", "--main_process_port", PORT),
]
# For its `--cpu` several processes need MPI; so its other launcher, told to use CPUs below.
ACCELERATE = [BIN / "accelerate", "launch", "--multi_gpu", *MACHINE]
FSDP = [
    *(BIN / "accelerate", "launch", "--use_fsdp", *MACHINE, "--fsdp_version", "2"),
    *("--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
    *("--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with its selection, nothing trained."""
    folder = tmp_path_factory.mktemp("launched") / "ws"
    folder.mkdir()
    made = fork(["-c", MAKE, str(folder)], loaded=with_models)
    assert made.code == 0, made.err
    text = (folder / "gapmend.yaml").read_text("utf-8")
    for before, after in SPEC.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "gapmend.yaml").write_text(text, "utf-8")
    chosen = forked("select", "-C", folder, loaded=with_models)
    assert chosen.code == 0, chosen.err
    return folder


def trained(command: list[Any], root: Path, copy: Path) -> tuple[dict[str, Any], Path]:
    """Run `train` in a copy of the workspace; returns its report and the copy."""
    shutil.copytree(root, copy)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
    }
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        environment.pop(name, None)
    done = subprocess.run(
        [*map(str, command), "train", "--json", "-C", str(copy)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1, done.stdout  # the first process alone answers
    return json.loads(lines[0]), copy


def forks(root: Path, copy: Path) -> tuple[dict[str, Any], Path]:
    """The same in two forks that are told what torchrun tells: nothing has to be loaded again."""
    shutil.copytree(root, copy)
    cpu = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    told |= {"MASTER_PORT": free_port(), **cpu}

    def rank(number: int) -> Called:
        mine = {**told, "RANK": f"{number}", "LOCAL_RANK": f"{number}"}
        return forked("train", "--json", "-C", copy, timeout=400, loaded=with_models, **mine)

    with ThreadPoolExecutor(2) as calls:
        first, second = calls.map(rank, range(2))
    assert (first.code, second.code) == (0, 0), first.err[-3000:] + second.err[-3000:]
    assert second.out == ""  # the first process alone answers
    return first.json(), copy


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    copy = Path(shutil.copytree(root, tmp_path_factory.mktemp("alone") / "ws"))
    cpu = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = forked("train", "--json", "-C", copy, timeout=400, loaded=with_models, **cpu)
    assert done.code == 0, done.err[-3000:]
    return done.json(), copy


@pytest.mark.parametrize(
    ("launcher", "sharded"),
    [
        pytest.param([], False, id="forks"),
        pytest.param(TORCHRUN, False, id="torchrun", marks=pytest.mark.soak),
        pytest.param(
            [*ACCELERATE, BIN / "gapmend"], False, id="accelerate", marks=pytest.mark.soak
        ),
        pytest.param([*FSDP, BIN / "gapmend"], True, id="fsdp2"),
    ],
)
def test_two_processes_do_what_one_does(
    root: Path,
    alone: tuple[dict[str, Any], Path],
    tmp_path: Path,
    launcher: list[Any],
    *,
    sharded: bool,
) -> None:
    single, single_root = alone
    report, copy = (
        trained(launcher, root, tmp_path / "ws") if launcher else forks(root, tmp_path / "ws")
    )
    assert (report["steps"], report["tokens"]) == (single["steps"], single["tokens"])
    assert (report["processes"], report["sharded"]) == (2, sharded)
    assert report["trained_tokens"] == single["trained_tokens"]
    for one, other in zip(report["curve"], single["curve"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    ws = OpenWorkspace.open(copy)
    runs = [one for one in ws.catalog.committed(RunMeta) if one.meta.stage == "train"]
    assert len(runs) == 1
    (adapter,) = ws.catalog.committed("adapter")
    expected = load_file(
        single_root
        / ".gapmend/objects/adapter"
        / single["adapter_id"]
        / "adapter_model.safetensors"
    )
    found = load_file(copy / ".gapmend/objects/adapter" / adapter.id / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert float(abs(tensor - expected[name]).max()) < 1e-4, name
