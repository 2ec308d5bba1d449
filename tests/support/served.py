"""A workspace on nano with adapters that weren't trained, and `gapmend serve` on it."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.support.loaded import Fork, with_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

MAIN = "pipeline.cli.main:main"
SPEC = """
bases: {nano: {model: nano, dtype: fp32}}
datasets: {sums: {path: sums.jsonl, columns: {input: question, output: answer}}}
capabilities: {sums: {data: sums, answer: exact, goal: 0.9, max_new_tokens: 8}}
train: {base: nano, pool: [sums]}
"""


def make_workspace(root: Path) -> None:
    """Make a workspace that has been measured nowhere; its data are ten sums."""
    root.mkdir(exist_ok=True)
    (root / "gapmend.yaml").write_text(SPEC)
    rows = [{"question": f"What is {n} plus 1?", "answer": str(n + 1)} for n in range(10)]
    (root / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def add_adapter(root: Path, *, seed: int, alias: str | None = None) -> str:
    """Put an adapter with drawn weights into the store, as training leaves one; return its id."""
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.adapters import move_alias, publish
    from registry.models.base import nano_folder
    from registry.models.tokenizer import load_tokenizer
    from tests.support.tiny_models import save_adapter

    ws = OpenWorkspace.open(root)
    made = save_adapter(root / f"made-{seed}", nano_folder(), seed=seed)
    config = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(config | {"revision": None}))
    tokenizer = load_tokenizer(nano_folder(), ws.spec.bases["nano"], "bases.nano")
    ref = publish(
        ws.store, made, base=ws.models.identity("nano"), tokenizer=tokenizer, meta={}, parents=[]
    )
    ws.catalog.commit([ref])
    if alias is not None:
        move_alias(ws.store, ws.catalog, alias, ref.id, expect=None, reason="for a test")
    return ref.id


@dataclass
class Served:
    """A server that runs.

    Attributes:
        fork: its process.
        address: its URL, without a path.
    """

    fork: Fork
    address: str
    out: IO[str]
    err: IO[str]

    def client(self, **more: Any) -> openai.OpenAI:
        """Return OpenAI's own client of it."""
        import openai

        told = {"api_key": "any", "timeout": 120, "max_retries": 0, **more}
        return openai.OpenAI(base_url=f"{self.address}/v1", **told)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal; return the exit code."""
        os.kill(self.fork.pid, number)
        return self.fork.wait(timeout)

    def said(self) -> str:
        """Return what it has written to stdout."""
        return _text(self.out)

    def logged(self) -> str:
        """Return what it has written to stderr."""
        return _text(self.err)


@contextmanager
def serving(root: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    """Run `gapmend serve` on a free port while the body does."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        argv = [MAIN, "serve", "-C", str(root), "--port", "0", *arguments]
        told = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
        with with_models.start(argv, stdout=out, stderr=err, environment=told) as fork:
            while "Ctrl-C ends it" not in _text(out) + _text(err):
                assert fork.poll() is None, _text(err)
                time.sleep(0.05)
            address = (_text(out) + _text(err)).partition("/v1 serves")[0].rpartition("\n")[2]
            yield Served(fork, address, out, err)


def _text(file: IO[str]) -> str:
    """Read without moving the place where the process writes: both share it."""
    return os.pread(file.fileno(), 1 << 20, 0).decode()
