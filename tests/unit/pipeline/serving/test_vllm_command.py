"""How vLLM's own server is started, and when it isn't."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evals.engine.backend import vllm_rank
from pipeline.serving.vllm import VllmServer, why_not
from pipeline.workspace.ui import Ui
from registry.chat.settings import ChatSettings
from registry.models.base import BaseIdentity, BaseSpec

HALF = BaseIdentity("qwen", "Qwen/Qwen3-0.6B@abc", "d", 6 * 10**8, 4096, "Qwen3", "bf16")


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    told = {"peft_type": "LORA", "r": 16, "bias": "none", "target_modules": ["q_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM in the package index; nothing of it is imported."""
    there = tmp_path / "site"
    (there / "vllm-0.99.0.dist-info").mkdir(parents=True)
    described = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.99.0\n"
    (there / "vllm-0.99.0.dist-info/METADATA").write_text(described)
    (there / "vllm.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(there))


def test_the_command_names_the_base_and_every_adapter() -> None:
    first, second = Path("/objects/a"), Path("/objects/b")
    named = {"champion": first, "5ab4bd68": first, "c0ffee00": second}
    server = VllmServer(Path("/base"), HALF, trusted=False, adapters=named, host="::1", port=81)
    assert server.command(64) == [
        *("vllm", "serve", "/base", "--served-model-name", "qwen", "--host", "::1", "--port", "81"),
        *("--dtype", "bfloat16", "--load-format", "safetensors", "--max-model-len", "4096"),
        *("--generation-config", "vllm", "--enable-lora", "--max-lora-rank", "64"),
        *("--max-loras", "2", "--max-cpu-loras", "2"),
        *("--lora-modules", "champion=/objects/a", "5ab4bd68=/objects/a", "c0ffee00=/objects/b"),
    ]


def test_the_command_of_a_base_alone() -> None:
    server = VllmServer(Path("/base"), HALF, trusted=True, adapters={}, host="h", port=1)
    command = server.command(64)
    assert "--trust-remote-code" in command
    assert not [word for word in command if "lora" in word]


@pytest.mark.usefixtures("vllm")
def test_a_base_in_half_precision_with_plain_adapters_is_served(tmp_path: Path) -> None:
    folders = {"a": adapter(tmp_path / "a"), "b": adapter(tmp_path / "b", r=128)}
    assert why_not(BaseSpec(model="x"), HALF, folders) is None
    assert vllm_rank(folders.values()) == 128
    assert vllm_rank(()) == 64


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("spec", "changed", "config", "said"),
    [
        ({"quantize": "nf4"}, {}, {}, "nf4"),
        ({"new_tokens": ("<a>",)}, {}, {}, "new tokens"),
        ({}, {"dtype": "fp32"}, {}, "fp32"),
        ({}, {"chat": ChatSettings(thinking="off")}, {}, "thinking"),
        ({}, {}, {"use_dora": True}, "DoRA"),
        ({}, {}, {"r": 1024}, "rank 1024"),
    ],
)
def test_what_it_would_answer_otherwise_is_said(
    tmp_path: Path, spec: dict[str, Any], changed: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    from dataclasses import replace

    folder = adapter(tmp_path / "a", **config)
    why = why_not(BaseSpec(model="x", **spec), replace(HALF, **changed), {"a": folder})
    assert why is not None
    assert said in why


@pytest.mark.usefixtures("vllm")
def test_changed_tensors_are_not_served(tmp_path: Path) -> None:
    from registry.store.filenames import CHANGED_WEIGHTS

    folder = tmp_path / "changed"
    folder.mkdir()
    (folder / CHANGED_WEIGHTS).write_bytes(b"")
    said = why_not(BaseSpec(model="x"), HALF, {"full": folder})
    assert said == "full is changed tensors, and vLLM takes LoRA alone"


@dataclass
class BecameError(Exception):
    """What this process would have become."""

    program: str
    command: list[str]
    environment: dict[str, str]


def became(monkeypatch: pytest.MonkeyPatch, root: Path, dtype: str, ui: Ui) -> BecameError:
    """What `gapmend serve` on a machine with a GPU ends in, for nano in this dtype."""
    from pipeline.verbs import serve
    from pipeline.workspace.workspace import OpenWorkspace

    def become(program: str, command: list[str], environment: dict[str, str]) -> None:
        raise BecameError(program, command, environment)

    root.mkdir()
    (root / "gapmend.yaml").write_text(
        f"bases: {{nano: {{model: nano, dtype: {dtype}}}}}\n"
        "datasets: {none: {path: none.jsonl, columns: {input: a, output: b}}}\n"
        "capabilities: {none: {data: none, answer: exact, goal: 0.9}}\n"
        "train: {base: nano, pool: [none]}\n"
    )
    monkeypatch.setattr(serve, "_has_gpu", lambda: True)
    monkeypatch.setattr(serve, "_beside_python", lambda program: f"/bin/{program}")
    monkeypatch.setattr("os.execve", become)
    monkeypatch.setenv("GAPMEND_TOKEN", "t" * 20)
    # Where nothing is replaced, a model would be loaded: that is the end here.
    monkeypatch.setattr("pipeline.talk.voice.Room.voice", lambda *_: become("ours", [], {}))
    with pytest.raises(BecameError) as caught:
        serve.serve(OpenWorkspace.open(root), ui, port=0, token=True)
    return caught.value


@pytest.mark.usefixtures("vllm")
def test_with_a_gpu_this_process_becomes_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = became(monkeypatch, tmp_path / "ws", "bf16", Ui())
    assert made.program == "/bin/vllm"
    assert made.command[:2] == ["vllm", "serve"]
    assert made.command[made.command.index("--served-model-name") + 1] == "nano"
    assert "t" * 20 not in made.command
    assert made.environment["VLLM_API_KEY"] == "t" * 20


@pytest.mark.usefixtures("vllm")
def test_what_vllm_doesn_t_take_is_said_and_served_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert became(monkeypatch, tmp_path / "ws", "fp32", Ui()).program == "ours"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("vLLM is there and isn't used: vLLM takes adapters in 16 bits only")
