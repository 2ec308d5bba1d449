"""gapmend from any folder: as a wheel, in an environment that the checkout is not on the path of.

What `uv tool install .` and `pipx install .` do, but for the dependencies: those are lent by the
environment that the tests run in, through a .pth file. (Python reads no .pth files in a folder
that one names, so the editable install there stays out.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("registry", "evals", "pipeline")
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
VERSION = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["version"]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would, without this project on Python's path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False, timeout=240,
        env={**kept, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves files beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(project_root / name, folder)
    for name in PACKAGES:
        unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(project_root / name, folder / name, ignore=unwanted)
    done = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--no-index", "--wheel-dir", folder / "dist", folder),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("gapmend-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("tool") / "venv"
    done = run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    done = run(
        *(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"),
        *("--no-deps", "--no-index", wheel),
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder


def test_every_file_of_the_packages_is_in_the_wheel(project_root: Path, wheel: Path) -> None:
    tracked = run("git", "ls-files", *PACKAGES, cwd=project_root)
    if tracked.returncode != 0:
        pytest.skip("not a checkout of git: there is no list of the project's files")
    wanted = set(tracked.stdout.splitlines())
    assert {"pipeline/workspace/starter/gapmend.yaml", "registry/nano/model.safetensors"} <= wanted
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert wanted - names == set()
    assert {name.partition("/")[0] for name in names - wanted} == {f"gapmend-{VERSION}.dist-info"}


def test_the_packages_are_those_of_the_wheel(environment: Path, tmp_path: Path) -> None:
    code = f"import {', '.join(PACKAGES)}, json\nprint(json.dumps([one.__file__ for one in ("
    code += f"{', '.join(PACKAGES)})]))"
    done = run(environment / "bin/python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for file in json.loads(done.stdout):
        assert Path(file).is_relative_to(environment), file


def test_it_works_from_any_folder(environment: Path, tmp_path: Path) -> None:
    gapmend = environment / "bin/gapmend"
    done = run(gapmend, "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"gapmend {VERSION}\n")
    for call in (("init", "x"), ("check", "-C", "x"), ("ingest", "-C", "x")):
        done = run(gapmend, *call, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = run(gapmend, "sql", "select count(*) as n from rows", "-C", "x", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)[0]["n"] > 0, done.stderr
