"""A new workspace, as `init` makes it: on the command line, and then in a notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline import Workspace
from pipeline.workspace.store import WorkspaceStore, adapter_named
from registry.store.kinds import AdapterMeta
from tests.e2e.conftest import gapmend
from tests.support.called import forked
from tests.support.loaded import with_models

if TYPE_CHECKING:
    from pathlib import Path

STAGES = "select stage from runs order by started_at"


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "my-model"
    assert gapmend("init", folder).code == 0
    return folder


def stages(folder: Path) -> list[str]:
    return [row["stage"] for row in forked("sql", STAGES, "-C", folder, "--json").json()]


@pytest.mark.xdist_group("with models")
def test_a_part_of_the_loop_is_run(starter: Path) -> None:
    refused = forked("run", "--from", "gap", "-C", starter, loaded=with_models)
    assert refused.code == 2
    assert refused.err.splitlines()[-1] == (
        "gapmend: --from: ingest is not up to date (has not run yet), and nothing before this "
        "stage is run. Run what is missing: gapmend run --until ingest"
    )
    done = gapmend("run", "--until", "gap", "-C", starter, "--json", timeout=300).json()
    assert [one["stage"] for one in done] == ["ingest", "gap", "cost"]
    assert sorted(stages(starter)) == ["gap", "ingest", "run"]


@pytest.mark.xdist_group("with models")
def test_the_starter_runs_as_it_is_and_ends_promoted(starter: Path) -> None:
    done = forked("run", "-C", starter, timeout=300, loaded=with_models)
    assert done.code == 0, done.err
    assert "is champion" in done.out
    assert "│ routing │ 0.90 │" in done.out
    assert "nothing asked (the spec has no guards)" in done.out


@pytest.mark.xdist_group("with models")
def test_docs_the_page_on_notebooks_runs_block_after_block(
    starter: Path, project_root: Path
) -> None:
    Workspace.open(starter).run()  # up to date, or this test is run alone
    before = stages(starter)
    page = (project_root / "docs/guide/notebook.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*blocks, "print(repr(ws), len(found.findings))"])],
        cwd=starter.parent, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, last = done.stdout.splitlines()
    assert refused.startswith("--until: no stage is called 'gaps'; expected one of ingest, gap")
    assert re.fullmatch(r"Workspace\('.*/my-model', champion [0-9a-f]{12}\) 1", last)
    assert stages(starter) == before  # all was up to date: the same stages on the same inputs


@pytest.mark.xdist_group("with models")
def test_a_look_at_the_loop_moves_no_champion(starter: Path) -> None:
    ws, kept = Workspace.open(starter), WorkspaceStore.open(starter)
    champion = kept.catalog.manifest(adapter_named(kept, "champion"), AdapterMeta)
    other = kept.store.put("adapter", None, identity={"twin": champion.id}, meta=champion.meta)
    kept.catalog.commit([other])
    ws.adapter.tag(other.id, "champion", force=True, reason="a test")
    assert {step.state for step in ws.plan()} == {"up to date"}
    ws.run(start="merge")
    assert ws.adapter.log()[-1].target == other.id
    ws.run(until="promote")
    assert ws.adapter.log()[-1].target == champion.id


def test_a_shell_completes_verbs() -> None:
    done = gapmend(_GAPMEND_COMPLETE="complete_bash", COMP_WORDS="gapmend pr", COMP_CWORD="1")
    assert done.out.split() == ["promote"]
