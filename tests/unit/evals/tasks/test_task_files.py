"""The files of lm-eval tasks: found, read and named by content; no lm-eval, no code is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evals.tasks.capability import GuardSpec
from evals.tasks.task_files import installed_tasks, read_task, task_digest, task_file
from pipeline.spec.spec import load_spec
from pipeline.verbs.check import check
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError

WHERE = "guards.g.lm_eval"
TASK = "include: shared\ntask: mine\nprocess_results: !function utils.score\n"
SPEC = """\
bases: {nano: {model: nano}}
datasets: {rows: {path: rows.csv, columns: {input: text, output: label}}}
capabilities: {intent: {data: rows, answer: exact, goal: 0.8}}
guards: {g: {lm_eval: %s}}
train: {base: nano, pool: [rows]}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks" / "mine"
    folder.mkdir(parents=True)
    (folder / "shared").write_text("output_type: generate_until\ntask: other\n")
    (folder / "utils.py").write_text("raise SystemExit('this ran')\n")
    (folder / "mine.yaml").write_text(TASK)
    return folder / "mine.yaml"


def refusal(text: str | bytes, folder: Path) -> str:
    (folder / "bad.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as raised:
        task_file("bad.yaml", folder, WHERE)
    line = str(raised.value)
    assert line.startswith(f"{WHERE}: ")
    assert "\n" not in line
    return line


def test_an_installed_task_is_found_by_its_name(tmp_path: Path) -> None:
    assert task_file("hellaswag", tmp_path) == installed_tasks() / "hellaswag" / "hellaswag.yaml"
    with pytest.raises(UserError, match=r"^guards\.g\.lm_eval: lm-eval has no task hellaswog;"):
        task_file("hellaswog", tmp_path, WHERE)
    with pytest.raises(UserError, match="mmlu is a group of lm-eval tasks; expected the name of"):
        task_file("mmlu", tmp_path, WHERE)


def test_finding_and_reading_load_no_lm_eval_and_run_no_code(mine: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evals.tasks.task_files import *\n"
        f"root = Path({str(mine.parent)!r})\n"
        "task_file('hellaswag', root); task_file('mine.yaml', root)\n"
        "task_digest(root / 'mine.yaml')\n"
        "assert not {'lm_eval', 'datasets', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_is_read_with_what_it_includes(mine: Path) -> None:
    root = mine.parents[2]
    assert task_file("tasks/mine/mine.yaml", root) == mine
    assert read_task(mine) == {
        "include": "shared",
        "output_type": "generate_until",
        "task": "mine",
        "process_results": "!function utils.score",
    }


def test_a_path_may_hold_a_variable(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPMEND_TASKS", str(mine.parent))
    assert task_file("${GAPMEND_TASKS}/mine.yaml", Path("/elsewhere")) == mine


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "is not YAML"),
        ("task: !!python/name:os.system x\n", "is not YAML"),
        ("- task\n", "is no task; expected a mapping of keys"),
        ("group: all\ntask: [one, two]\n", "is a group of lm-eval tasks"),
        ("task: [one, two]\n", "names no task"),
        ("include: gone.yaml\ntask: one\n", "gone.yaml can't be read: No such file"),
        ("include: bad.yaml\ntask: one\n", "bad.yaml includes itself"),
        (b"task: \xff\n", "can't be read: invalid UTF-8"),
    ],
)
def test_what_is_no_task_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(text, tmp_path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/no\.yml can't be read: No such file"):
        task_file("no.yml", tmp_path, WHERE)


def test_the_content_beside_a_task_names_it(mine: Path) -> None:
    folder = mine.parent
    found = {task_digest(mine)}
    for name in ("mine.yaml", "utils.py", "shared", "more.yml", "deeper/other.py"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + "# changed\n")
        assert task_digest(mine) not in found, name
        found.add(task_digest(mine))
    last = task_digest(mine)
    for name in ("docs.jsonl", ".venv/lib.py", "__pycache__/x.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x = 1")
    assert task_digest(mine) == last
    moved = folder.parent / "moved"
    folder.rename(moved)
    assert task_digest(moved / "mine.yaml") == last
    (moved / "mine.yaml").rename(moved / "renamed.yaml")
    assert task_digest(moved / "renamed.yaml") not in found


def test_only_code_of_the_user_s_own_has_a_digest(mine: Path) -> None:
    from evals.scoring.plan import code_digest  # lm-eval takes a second to load

    root = mine.parents[2]
    own = GuardSpec(lm_eval="tasks/mine/mine.yaml", allow_code=True)
    assert code_digest(own, root) == task_digest(mine)
    assert code_digest(GuardSpec(lm_eval="hellaswag"), root) is None
    assert code_digest(GuardSpec(data="d", answer="exact"), root) is None


def test_a_task_file_is_run_by_leave_alone(tmp_path: Path) -> None:
    path = tmp_path / "gapmend.yaml"
    path.write_text(SPEC % "tasks/mine.yaml")
    with pytest.raises(UserError) as raised:
        load_spec(path)
    assert str(raised.value) == (
        "gapmend.yaml:4: guards.g: lm_eval: a task file of your own is code; set allow_code: true "
        "to run it"
    )
    path.write_text(SPEC % "tasks/mine.yaml, allow_code: true")
    assert load_spec(path).guards["g"].lm_eval == "tasks/mine.yaml"


@pytest.mark.parametrize(
    ("guard", "line"),
    [
        ("hellaswog", "lm-eval has no task hellaswog"),
        ("tasks/no.yaml, allow_code: true", "tasks/no.yaml can't be read"),
    ],
)
def test_check_says_that_a_task_is_not_there(tmp_path: Path, guard: str, line: str) -> None:
    (tmp_path / "gapmend.yaml").write_text(SPEC % guard)
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    with pytest.raises(UserError, match=rf"^gapmend\.yaml:4: guards\.g\.lm_eval: .*{line}"):
        check(OpenWorkspace.open(tmp_path), Ui(as_json=True))
