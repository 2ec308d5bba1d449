"""`gapmend check` finds what gap would stop at, and names the place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.ingest import ingest
from pipeline.spec.errors import line_of
from pipeline.verbs.check import check
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError
from registry.models import half
from registry.models.load import nano_folder
from tests.support import tiny_models

STARTER = Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter"


def starter(folder: Path, *changes: tuple[str, str]) -> None:
    """Put the starter into a folder, with changes to its spec."""
    shutil.copytree(STARTER, folder, dirs_exist_ok=True)
    spec = folder / "gapmend.yaml"
    text = spec.read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    spec.write_text(text, "utf-8")


def checked(folder: Path, *changes: tuple[str, str]) -> None:
    starter(folder, *changes)
    check(OpenWorkspace.open(folder), Ui(as_json=True))


def test_the_starter_is_fit(tmp_path: Path) -> None:
    checked(tmp_path)
    checked(tmp_path, ("{input}", "One of {labels}.\\n{input}"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("{input}", "{inputt}")], "capabilities.routing: the prompt names {inputt}, which"),
        (
            [("answer: choice  ", 'answer: regex\n    pattern: "{inpu}"  ')],
            "capabilities.routing: the prompt names {inpu}, which is not a column",
        ),
        (
            [("answer: choice  ", 'answer: regex\n    pattern: "(x"  ')],
            "gapmend.yaml:14: capabilities.routing: the pattern '(x' is not valid",
        ),
        (
            [("answer: choice  ", "answer: choice\n    labels: '{teams}'  ")],
            "tickets.csv:2: the row has no column 'teams', which labels names",
        ),
    ],
)
def test_a_template_that_fits_no_row_is_found(
    tmp_path: Path, changes: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        checked(tmp_path, *changes)
    assert message in str(raised.value)


def test_a_base_without_a_tokenizer_is_found(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(nano_folder() / name, base)
    with pytest.raises(UserError) as raised:
        checked(tmp_path, ("{model: nano}", "{model: base}"))
    assert str(raised.value).startswith("gapmend.yaml:4: bases.nano: reading the tokenizer fails: ")
    assert "\n" not in str(raised.value)


def notes(folder: Path, rows: str, *changes: tuple[str, str]) -> tuple[str, ...]:
    """Return what `check` says of the starter with these rows as its tickets."""
    starter(folder, ("{dev: 0.25, test: 0.25}", "{dev: 1, test: 1}"), *changes)
    (folder / "data" / "tickets.csv").write_bytes(rows.encode("utf-8", "surrogateescape"))
    return check(OpenWorkspace.open(folder), Ui(as_json=True)).notes


def test_labels_that_differ_in_writing_alone_are_said(tmp_path: Path) -> None:
    rows = "text,team\n1,Billing\n2,billing \n3,ＢＩＬＬＩＮＧ\n4,sales\n5,sales\n"  # noqa: RUF001
    (said,) = notes(tmp_path, rows)
    assert said.startswith("datasets.tickets: 'Billing' (data/tickets.csv:2) and 'billing ' (data/")
    assert said.endswith("differ by case, space, width, Unicode form or a .0 alone: two labels")
    assert notes(tmp_path / "other", "text,team\n1,billing\n2,bill\n3,sales\n") == ()
    (said,) = notes(tmp_path / "floats", "text,team\n1,1\n2,0\n3,1.0\n4,0\n5,1\n6,0\n")
    assert said.startswith("datasets.tickets: '1' (data/tickets.csv:2, in 2 rows) and '1.0' (data/")


def test_labels_that_the_spec_lists_in_another_writing_are_said(tmp_path: Path) -> None:
    rows = "text,team\n1,Billing\n2,sales\n3,sales\n4,sales\n"
    change = ("answer: choice  ", "answer: choice\n    labels: [billing, sales]  ")
    assert (
        "'billing' (of labels) and 'Billing' (data/tickets.csv:2) differ"
        in notes(tmp_path, rows, change)[0]
    )


def test_missing_cells_as_answers_are_said(tmp_path: Path) -> None:
    rows = "text,team\n1,nan\n2,#REF!\n3,sales\n4,#REF!\n5,none\n"
    of_nan, of_error = notes(tmp_path, rows)
    assert of_nan.endswith("tickets.csv:2: the answer is 'nan', as a table's missing cell")
    assert of_error.endswith(":3: the answer is '#REF!', as a table's missing cell, in 2 rows")


def test_how_files_are_read_is_said_where_it_is_not_as_usual(tmp_path: Path) -> None:
    assert notes(tmp_path, "text;team\n1;a\n2;b\n3;b\n") == (
        "datasets.tickets: data/tickets.csv: separator ;",
    )


def test_records_that_a_key_would_read_are_said(tmp_path: Path) -> None:
    rows = "text,team\n" + "".join(f"{n},a\n{n},b\n" for n in range(9)) + "caf\udce9,a\n"
    (said,) = notes(tmp_path, rows)
    assert "data/tickets.csv:20, byte 0xe9; in windows-1252 it reads 'café': no row" in said
    assert said.endswith("set the dataset's encoding: windows-1252, else the encoding that the file"
                         " was saved in")  # fmt: skip


ROWS_SPEC = """
bases:
  base: {model: base}
datasets:
  facts: {path: facts.csv}
  chats: {path: chats.jsonl}
capabilities:
  facts: {data: facts, answer: exact, goal: 0.9}
train: {base: base, pool: [facts, chats]}
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose base is tried once, for all who put rows into it."""
    folder = tmp_path_factory.mktemp("pool")
    (folder / ".gapmend").mkdir()
    tiny_models.save(folder / "base", "llama")
    return folder


def rows_checked(folder: Path, *rows: dict[str, Any]) -> tuple[str, ...]:
    """The notes of a pool with these rows, one a line."""
    (folder / "gapmend.yaml").write_text(ROWS_SPEC)
    facts = "".join(f"what is {n},it is {n}\n" for n in range(12))
    (folder / "facts.csv").write_text(f"input,output\n{facts}")
    (folder / "chats.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return check(OpenWorkspace.open(folder), Ui(as_json=True)).notes


def chat(*said: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}, *said], **more}


CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
HELLO = {"role": "assistant", "content": "hello"}


def test_rows_that_the_template_cannot_show_are_named(pool: Path) -> None:
    assert rows_checked(pool, chat(HELLO), chat(HELLO)) == ()
    for row, reason in (
        (chat({**HELLO, "reasoning_content": "hm"}), "leaves out the reasoning of turn 2"),
        (chat(HELLO, tools=[{"name": "f", "parameters": {}}]), "leaves out tool 1"),
        (
            chat(CALL, {"role": "tool", "content": "5"}, HELLO),
            "leaves out a call of turn 2",
        ),
    ):
        with pytest.raises(UserError) as raised:
            rows_checked(pool, chat(HELLO), row)
        assert f"chats.jsonl:2: the chat template {reason}" in str(raised.value)


def test_text_that_is_a_chat_already_is_said(pool: Path) -> None:
    plain = {"text": "Once upon a time."}
    (note,) = rows_checked(pool, plain, {"text": "<|user|>hi<|end|><|assistant|>hello<|end|>"})
    assert note.startswith("datasets.chats: 1 texts end as turns of the base's chat format do")
    assert "chats.jsonl:2" in note


def test_special_tokens_in_texts_are_said(pool: Path) -> None:
    """As transformers' pull request 47853: a user's text forges turns, or is templated twice."""
    twice = {"role": "assistant", "content": "<|assistant|>hello<|end|>"}
    page = {"messages": [{"role": "user", "content": "<s>old</s> price"}, HELLO]}
    (note,) = rows_checked(pool, chat(HELLO), chat(twice), page)
    assert note.startswith("datasets.chats: 2 rows have special tokens of the base in their text")
    assert "chats.jsonl:2: <|assistant|>" in note


def test_a_capability_of_calls_is_refused(pool: Path) -> None:
    spec = ROWS_SPEC.replace("data: facts", "data: chats")
    rows_checked(pool, chat(HELLO))
    (pool / "gapmend.yaml").write_text(spec)
    (pool / "chats.jsonl").write_text(f"{json.dumps(chat(CALL))}\n")
    with pytest.raises(UserError, match="the answer is a tool call, which no scorer reads"):
        check(OpenWorkspace.open(pool), Ui(as_json=True))


LATE_SPEC = """
bases: {nano: {model: nano}}
datasets:
  facts: {path: facts.jsonl, columns: {input: q, output: a}%s}
capabilities:
  facts: {data: facts, answer: exact, goal: 0.5%s}
train: {base: nano, pool: [facts]%s}
"""


def late(
    folder: Path, *changes: str, asked: str = "q", answer: str = "exact", long: int = 0
) -> list[str]:
    """What `check` finds before any model is asked, as people read it."""
    spec = LATE_SPEC.replace("answer: exact", f"answer: {answer}")
    (folder / "gapmend.yaml").write_text(spec % (*changes, *[""] * 3)[:3])
    rows = [{asked: f"{n} of {n * n}? " * (800 if n < long else 1), "a": f"{n}"} for n in range(90)]
    (folder / "facts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    try:
        found = check(OpenWorkspace.open(folder), Ui(as_json=True)).findings
    except UserError as error:
        return str(error).splitlines()
    return [line_of(one) for one in found]


def test_what_would_stop_a_run_late_is_found_with_its_line(tmp_path: Path) -> None:
    assert late(tmp_path) == []
    (said,) = late(tmp_path, asked="question")
    assert said == (
        "gapmend.yaml:4: datasets.facts.columns.input: none of the 90 records of facts.jsonl has a "
        "column 'q'; expected one of its columns question, a"
    )
    (said,) = late(tmp_path, "", "", ", objective: dpo")
    assert said.startswith("gapmend.yaml:7: train.objective: no row of the pool can be trained on")
    (said,) = late(tmp_path, ", split: {dev: 60, test: 30}")
    assert "none of the 90 rows of dataset 'facts' is for training (60 in dev and 30 in" in said
    (said,) = late(tmp_path, ", split: {dev: 0, test: 30}")
    assert said.startswith("gapmend.yaml:6: capabilities.facts.data: it has no items in dev, so it")
    trained, said = late(tmp_path, long=3)
    assert trained.startswith("gapmend.yaml:7: train.pool: 3 of 90 rows for training in dataset")
    assert said.startswith("gapmend.yaml:6: capabilities.facts.prompts: 3 of 90 items are longer")
    assert "the first facts.jsonl:1 with" in said
    (said,) = late(tmp_path, "", ", prompts: {few_shot: [5, 100]}")
    assert "prompts.few_shot: 100 examples are wanted, and dataset 'facts' has 72 rows in" in said
    for said in late(tmp_path, "", ", limit: 3"):
        assert said.startswith("gapmend.yaml:6: capabilities.facts.limit: 3 items in dev (of 9, by")
        assert "expected at least 6 items" in said


def test_rows_longer_than_the_context_are_found_in_each_split(tmp_path: Path) -> None:
    """Before, 500 long rows for training hid those for dev, and a run found these at `select`."""

    def write(split: str, times: int, many: int = 90) -> None:
        rows = [{"q": f"{n} of {split}? " * times, "a": f"{n}"} for n in range(many)]
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def found(more: str = "") -> list[str]:
        spec = LATE_SPEC.replace("path: facts.jsonl", f"path: {paths}") % ("", more, "")
        (tmp_path / "gapmend.yaml").write_text(spec)
        return [line_of(one) for one in check(OpenWorkspace.open(tmp_path), Ui()).findings]

    paths = "{train: train.jsonl, dev: dev.jsonl, test: test.jsonl}"
    for split in ("train", "dev", "test"):
        write(split, 1)
    assert found() == []
    (said,) = found(", prompts: {few_shot: [5, 200]}, limit: 40")[-1:]
    assert "few_shot: 200 examples of about" in said
    write("train", 400, 600)
    (said,) = found()
    assert said.startswith(
        "gapmend.yaml:7: train.pool: 600 of 600 rows for training in dataset 'facts' are longer "
        "than the context of base 'nano', the first train.jsonl:1 with "
    )
    write("dev", 400)
    with pytest.raises(UserError, match=r"90 of 180 items are longer than the .* dev.jsonl:1 with"):
        found()


def test_why_no_record_can_be_used_is_said(tmp_path: Path) -> None:
    """Before, `check` said that the pool teaches nothing and that dev is empty, and not why."""
    (said,) = late(tmp_path, answer="choice, labels: [one, two]")
    assert said.startswith("gapmend.yaml:4: datasets.facts: 90 of 90 records can't be used: ")


def test_a_split_that_is_changed_after_ingest_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, the key was ignored without a word: dev stayed as it was."""
    late(tmp_path)
    ingest(OpenWorkspace.open(tmp_path), Ui(as_json=True))
    assert late(tmp_path) == []
    for _ in range(2):
        (said,) = late(tmp_path, ", split: {dev: 0.4}")
        assert said.startswith("gapmend.yaml:4: datasets.facts.split: dev is 0.4 now and was left")
        assert "dev has 9 rows, not 36; to split it anew, give the dataset another name" in said
        ingest(OpenWorkspace.open(tmp_path), Ui(as_json=True))
    assert "facts: dev is 0.4 now and was left to the default" in capsys.readouterr().err


def test_a_dtype_that_this_machine_is_slow_in_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "_device", lambda: ("cpu", frozenset()))
    starter(tmp_path, ("{model: nano}", "{model: nano, dtype: bf16}"))
    (said,) = check(OpenWorkspace.open(tmp_path), Ui(as_json=True)).notes
    assert said.startswith("bases.nano.dtype: bf16 is slow here: this CPU is without avx512_bf16")
