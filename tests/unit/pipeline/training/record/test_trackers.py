"""Trackers get each step once, never stop a training, and are told nothing private."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.training.record import trackers as seam
from pipeline.training.record.tracker_kinds import Shown
from pipeline.training.record.trackers import Trackers, open_trackers, public_config
from registry.errors import UserError

CONFIG = {"rank": 4, "learning_rate": 2e-4, "targets": ("q_proj", "v_proj"), "alpha": None}


def values(step: int) -> dict[str, float]:
    return {"loss": 3.0 / step, "learning_rate": 1e-4 * step, "tokens": 128.0 + step}


def follow(trackers: Trackers, first: int, last: int) -> None:
    with trackers:
        trackers.begin(first)
        for step in range(first, last + 1):
            trackers.log(step, values(step))


@dataclass
class Recording:
    """A tracker that keeps what it is told, and may fail at a step."""

    fails_at: int | None = None
    has: int = 0
    told: list[object] = field(default_factory=list)

    def start(self, run_name: str, config: Mapping[str, Shown], *, first_step: int) -> int:
        self.told.append((run_name, dict(config), first_step))
        return self.has

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("no answer from\nhttps://example.org")
        self.told.append((step, dict(values)))

    def finish(self, *, done: bool) -> None:
        self.told.append(done)


def together(said: list[str], **trackers: Recording) -> Trackers:
    named: Any = trackers
    return Trackers(named, "run-1", CONFIG, said.append)


# ------------------------------------------------------------------------------------ the seam


def test_every_tracker_is_told_everything() -> None:
    said: list[str] = []
    one, other = Recording(), Recording()
    follow(together(said, wandb=one, mlflow=other), 1, 3)
    shown = {"rank": 4, "learning_rate": 2e-4, "targets": "q_proj, v_proj"}
    steps = [(step, values(step)) for step in (1, 2, 3)]
    assert one.told == other.told == [("run-1", shown, 1), *steps, True]
    assert said == []


def test_one_that_fails_is_left_out_and_the_others_go_on() -> None:
    said: list[str] = []
    failing, other = Recording(fails_at=2), Recording()
    follow(together(said, wandb=failing, mlflow=other), 1, 4)
    assert [told[0] for told in failing.told if isinstance(told, tuple)] == ["run-1", 1]
    assert len(other.told) == 6
    (line,) = said
    assert line == (
        "the tracker 'wandb' failed and is left out for the rest of this run "
        "(ConnectionError: no answer from https://example.org)"
    )


def test_a_run_that_fails_is_told_apart() -> None:
    tracker = Recording()
    trackers = together([], wandb=tracker)
    trackers.begin(1)
    with pytest.raises(ZeroDivisionError), trackers:
        raise ZeroDivisionError
    assert tracker.told[-1] is False


def test_what_was_never_opened_is_not_finished() -> None:
    tracker = Recording()
    with together([], wandb=tracker):
        pass
    assert tracker.told == []


def test_nothing_is_logged_before_the_beginning() -> None:
    with pytest.raises(RuntimeError, match="begin comes before log"):
        together([], wandb=Recording()).log(1, values(1))


def test_steps_that_a_tracker_has_are_not_logged_again() -> None:
    knows, purges = Recording(has=5), Recording()
    follow(together([], mlflow=knows, tensorboard=purges), 4, 7)
    assert [told[0] for told in knows.told[1:-1] if isinstance(told, tuple)] == [6, 7]
    assert [told[0] for told in purges.told[1:-1] if isinstance(told, tuple)] == [4, 5, 6, 7]


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "find_spec", lambda _: None)
    with pytest.raises(UserError) as caught:
        open_trackers(["tensorboard"], tmp_path, "run-1", CONFIG, say=print)
    assert str(caught.value) == (
        "train.trackers: the package of the tracker 'tensorboard' is not installed. "
        "Install it with: pip install tensorboard; or take tensorboard out of the list"
    )


def test_a_name_that_would_lead_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a run's name"):
        open_trackers([], tmp_path, "../elsewhere", {}, say=print)


def test_no_tracker_imports_nothing_and_makes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.training.record.trackers import open_trackers\n"
        f"with open_trackers([], Path({str(tmp_path)!r}), 'run-1', {{}}, say=print) as trackers:\n"
        "    trackers.begin(1); trackers.log(1, {'loss': 1.0})\n"
        "assert not {'torch', 'tensorboard', 'wandb', 'mlflow', 'trackio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------- privacy


@pytest.mark.parametrize(
    "private",
    [
        {"base": "/home/someone/model"},
        {"base": "~/model"},
        {"base": "C:\\models\\one"},
        {"data": {"files": ["rows.jsonl", "/srv/rows.jsonl"]}},
        {"note": "read from=/data/x"},
        {"hub": "hf_" + "aB3" * 11},
        {"api_key": "something"},
        {"note": "the key is made-up-key-of-a-service"},
        {"folder": Path("/anywhere/at/all")},
    ],
)
def test_paths_and_secrets_are_left_out(
    private: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "made-up-key-of-a-service")
    assert public_config({**private, "rank": 4}) == {"rank": 4}


def test_what_only_looks_private_stays() -> None:
    config = {"base": "org/model", "train": {"batch_tokens": 4096, "note": "a/b, 1/2"}}
    shown = {"base": "org/model", "train.batch_tokens": 4096, "train.note": "a/b, 1/2"}
    assert public_config(config) == shown


def test_an_error_is_told_without_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "made-up-key-of-a-service")
    told = seam._told(RuntimeError("401 for made-up-key-of-a-service"))
    assert told == "RuntimeError"
    assert seam._told(RuntimeError("no folder /tmp/x")) == "RuntimeError: no folder /tmp/x"
