"""`./just` on a bare machine: what it says when Python is missing, and that kills don't hurt it.

The cases that install use a project of four lines instead of this one: the script is the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

TOOLS = ("dirname", "cat", "cmp", "head", "rm", "mkdir", "mv", "sh")


def bare_machine(folder: Path, python3: str | None = None) -> dict[str, str]:
    """An environment whose PATH has the POSIX tools and, as `python3`, this shell script."""
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    if python3 is not None:
        (folder / "python3").write_text(f"#!/bin/sh\n{python3}\n", "utf-8")
        (folder / "python3").chmod(0o755)
    return {"PATH": str(folder)}


def tiny_project(folder: Path, root: Path) -> Path:
    """A project that needs nothing but `just`, pinned as here; with this project's script."""
    folder.mkdir()
    shutil.copy(root / "just", folder / "just")
    pins = (root / "constraints.txt").read_text("utf-8").splitlines()
    wanted = ("pip==", "setuptools==", "rust-just==")
    lines = [line for line in pins if line.startswith(wanted)]
    (folder / "constraints.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "tiny"\nversion = "1"\noptional-dependencies.dev = ["rust-just"]\n'
        "[tool.setuptools]\npy-modules = []\n",
        "utf-8",
    )
    (folder / "justfile").write_text(
        "set positional-arguments\nsay *args:\n    @printf '<%s>' \"$@\"\n", "utf-8"
    )
    return folder


def just(project: Path, *args: str, env: dict[str, str] | None = None, cwd: Path | None = None):
    return subprocess.run(
        ["/bin/sh", project / "just", *args],
        env=env, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("python3", "message"),
    [
        (None, "there is no python3 on the PATH"),
        (
            'case $2 in *"version_info <"*) exit 1 ;; *) echo "/bin/python3, 3.9" ;; esac',
            "Python 3.11 or later is needed; found only /bin/python3, 3.9.",
        ),
        (
            'case $2 in *ensurepip*) exit 1 ;; *print*) echo "/bin/python3, 3.12" ;; esac',
            "apt install python3-venv",
        ),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, project_root: Path, python3: str | None, message: str
) -> None:
    project = tiny_project(tmp_path / "project", project_root)
    done = just(project, env=bare_machine(tmp_path / "bin", python3))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (project / ".venv").exists()


@pytest.mark.soak
def test_arguments_arrive_and_a_second_call_is_quick(tmp_path: Path, project_root: Path) -> None:
    project = tiny_project(tmp_path / "a project", project_root)
    first = just(project, "say", "a > b", "'", "$HOME", cwd=tmp_path)
    assert (first.stdout, first.returncode) == ("<a > b><'><$HOME>", 0), first.stderr
    start = time.monotonic()
    second = just(project, "--version", cwd=tmp_path)
    assert second.stderr == ""
    assert time.monotonic() - start < 0.25  # 0.02 s on an idle machine


@pytest.mark.soak
@pytest.mark.parametrize("delay", [0.3, 1.0, 2.0, 4.0, 6.0])
def test_a_killed_installation_is_made_good(
    tmp_path: Path, project_root: Path, delay: float
) -> None:
    project = tiny_project(tmp_path / "project", project_root)
    running = subprocess.Popen(["/bin/sh", project / "just", "say"], start_new_session=True)
    time.sleep(delay)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = just(project, "say", "here")
    assert (done.stdout, done.returncode) == ("<here>", 0), done.stderr


@pytest.mark.soak
def test_two_at_once_install_once(tmp_path: Path, project_root: Path) -> None:
    project = tiny_project(tmp_path / "project", project_root)
    both = [
        subprocess.Popen(
            ["/bin/sh", project / "just", "say", "here"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    ended = [process.communicate() for process in both]
    assert [out for out, _ in ended] == ["<here>", "<here>"], ended
    assert sum("installing into" in err for _, err in ended) == 1


@pytest.mark.soak
def test_a_moved_project_is_installed_again(tmp_path: Path, project_root: Path) -> None:
    just(tiny_project(tmp_path / "project", project_root), "say")
    moved = (tmp_path / "project").rename(tmp_path / "elsewhere")
    done = just(moved, "say", "here")
    assert done.stdout == "<here>", done.stderr
    python = subprocess.run(
        [moved / ".venv/bin/python", "-c", "import sys; print(sys.prefix)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(python.stdout.strip()) == moved / ".venv"
