"""Talking to a workspace's models: who answers, how they are asked, what is kept."""

from __future__ import annotations

import json
import os
import threading
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest

from evals.engine.live.ask import Ask, Finish, Piece, Stream
from evals.tasks.prompts import arms_of, render_messages
from pipeline.cli.chat import _failed as failures
from pipeline.cli.chat import _plain as texts
from pipeline.ingest import ingest, resolve
from pipeline.measure.measure import items_of, labels_of_subject, shots_of
from pipeline.report.chat import _written as written
from pipeline.report.chat import ask_shown
from pipeline.spec.subjects import subject
from pipeline.talk.keep import keep
from pipeline.talk.reply import Failed, Reply, Said
from pipeline.talk.talk import Drawing, Talk, open_talk
from pipeline.talk.who import talker, talkers
from pipeline.verbs.chat import Commands, Line, Lines, answered
from pipeline.verbs.chat import _ended as ended
from pipeline.workspace.console import open_console
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError
from registry.models.adapters import move_alias, publish
from registry.models.base import nano_folder
from registry.store.kinds import ModelMeta
from tests.support import tiny_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPEC = """
bases: {nano: {model: nano, dtype: fp32}}
datasets:
  teams: {path: {train: data/teams.jsonl, dev: data/dev.jsonl}, columns: {input: q, output: a}}
  talks: {path: data/talks}
  shares: {path: data/shares.jsonl}
  table: {path: data/table.csv}
capabilities:
  team:
    data: teams
    answer: choice
    labels: [red, blue]
    goal: 0.9
    prompts:
      {system: Be short., zero_shot: "Which team? {input}", few_shot: [2, 3], cot: "{input}{x}"}
guards:
  talking: {data: talks, answer: exact, max_drop: 0.1, prompts: {few_shot: [3]}}
  shared: {data: shares, answer: exact, max_drop: 0.1}
train: {base: nano, pool: [teams], budget_rows: 10}
"""
ASKED = {"role": "user", "content": "Who wins?"}
SAID = {"role": "assistant", "content": "red"}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def words(number: int) -> str:
    """A question that is like no other one."""
    return " ".join(f"{'bcdfghklm'[number * n % 9]}a{number * n % 97}" for n in range(1, 9))


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    """A workspace with an adapter of nano and a whole model, and rows of several forms."""
    root = tmp_path_factory.mktemp("ws")
    (root / "data" / "talks").mkdir(parents=True)
    (root / "gapmend.yaml").write_text(SPEC)
    teams = [{"q": words(n), "a": ("red", "blue")[n % 2]} for n in range(1, 41)]
    (root / "data" / "teams.jsonl").write_text(lines(teams[:20]))
    (root / "data" / "dev.jsonl").write_text(lines(teams[20:]).rstrip("\n"))
    turns = [{"messages": [{"role": "user", "content": words(n)}, SAID]} for n in range(100, 130)]
    (root / "data" / "talks" / "a.jsonl").write_text(lines(turns))
    shared = [
        {"conversations": [{"from": "human", "value": words(n)}, {"from": "gpt", "value": "ok"}]}
        for n in range(200, 230)
    ]
    (root / "data" / "shares.jsonl").write_text(lines(shared))
    (root / "data" / "table.csv").write_text("input,output\na,b\nc,d\n")
    made = OpenWorkspace.open(root)
    _adapter(made, root)
    return made


def _adapter(ws: OpenWorkspace, root: Path) -> None:
    folder = tiny_models.save_adapter(root / "lora", nano_folder())
    chat = ws.models.chat("nano")
    adapter = publish(
        ws.store,
        folder,
        base=ws.models.identity("nano"),
        tokenizer=chat.tokenizer,
        meta={},
        parents=[],
    )
    with ws.store.draft() as draft:
        for file in nano_folder().glob("*.[js]*"):
            if file.name != "recipe.json":
                (draft / file.name).write_bytes(file.read_bytes())
        meta = ModelMeta(base="nano", dtype="fp32")
        model = ws.store.put("model", draft, identity={"whole": "1"}, parents=[], meta=meta)
    ws.catalog.commit([adapter, model])
    move_alias(ws.store, ws.catalog, "mine", adapter.id, expect=None, reason="")


@pytest.fixture(scope="module")
def talk(ws: OpenWorkspace) -> Iterator[Talk]:
    drawing = Drawing(limit=12)
    with open_talk(ws, Ui(as_json=True), "mine", against="nano", drawing=drawing) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_said(request: pytest.FixtureRequest) -> None:
    if "talk" in request.fixturenames:
        made = request.getfixturevalue("talk")
        made.asking = None
        made.forget()


def test_everybody_is_listed_and_found_by_name(ws: OpenWorkspace) -> None:
    listed = talkers(ws)
    assert [(one.kind, one.base) for one in listed] == [
        ("base", "nano"), ("adapter", "nano"), ("adapter", "nano"), ("model", "nano"),
    ]  # fmt: skip
    assert [one.name for one in listed[:2]] == ["nano", "mine"]
    for one in listed:
        found = talker(ws, one.name)
        assert (found.id, found.adapter, found.weights) == (one.id, one.adapter, one.weights)
    assert talker(ws).name == "nano"  # no champion yet
    assert listed[3].weights.model == f"merged:{listed[3].id}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no model is called 'nobody' .*expected nano, champion, another alias, or the"),
        ("champion", "no adapter is champion yet"),
        ("0000", "no model is called '0000'"),
    ],
)
def test_nobody_of_that_name(ws: OpenWorkspace, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        talker(ws, name)


def test_a_version_is_nobody(ws: OpenWorkspace) -> None:
    version = ingest(ws, Ui(as_json=True), ["table"]).versions["table"]
    with pytest.raises(UserError, match="is a dataset_version; expected a model or an adapter"):
        talker(ws, version[:12])


def test_an_adapter_of_another_base_is_refused_and_not_listed(ws: OpenWorkspace) -> None:
    other = ws.with_spec(
        ws.spec.model_copy(
            update={"bases": {"n": ws.spec.bases["nano"].model_copy(update={"dtype": "bf16"})}}
        )
    )
    with pytest.raises(UserError, match="belongs to a base that the spec hasn't"):
        talker(other, "mine")
    assert [one.kind for one in talkers(other)] == ["base", "model"]


def test_two_answer_each_as_itself_and_turn_by_turn(talk: Talk) -> None:
    first = [reply.end() for reply in talk.ask("What is 2 plus 1?")]
    assert [one.model for one in first] == ["mine", "nano"]
    assert first[0].written != first[1].written
    for reply, side in zip(talk.ask("And now?"), talk.sides, strict=True):
        turns = [
            {"role": "user", "content": "What is 2 plus 1?"},
            {"role": "assistant", "content": side.exchanges[0].said.text},
            {"role": "user", "content": "And now?"},
        ]
        shown = side.voice.chat.context(turns)
        tokenizer = side.voice.chat.tokenizer
        assert list(reply.stream.ask.prompt) == tokenizer.encode(shown, add_special_tokens=False)
        said = reply.end()
        assert said.prompt_tokens == len(reply.stream.ask.prompt)
        assert side.exchanges[-1].turns == tuple(turns)
    talk.forget()
    assert [reply.end().written for reply in talk.ask("What is 2 plus 1?")] == [
        one.written for one in first
    ]


@pytest.mark.parametrize("name", ["zero_shot", "few_shot_3", "few_shot_3_similar"])
def test_a_prompt_is_applied_as_it_was_measured(ws: OpenWorkspace, talk: Talk, name: str) -> None:
    from pipeline.talk.asking import asking

    ui = Ui(as_json=True)
    talk.asking = asking(ws, ui, name, "team")
    resolved, what = resolve(ws, ui, ["teams"]), subject(ws.spec, "team")
    arm = next(one for one in arms_of(what.spec.prompts) if one.name == name)
    item = items_of(resolved, what, "dev")[0]
    shots = shots_of(resolved, what, arm, [item])
    shown = shots[item.uid] if arm.similar else shots
    wanted = render_messages(arm, item, shown, labels_of_subject(resolved, what))  # type: ignore[arg-type]
    reply = talk.ask(item.fields["input"])[0]
    context = talk.sides[0].voice.chat.context(wanted)
    assert list(reply.stream.ask.prompt) == talk.sides[0].voice.chat.tokenizer.encode(context)
    reply.end()
    assert talk.sides[0].exchanges[0].turns == ({"role": "user", "content": item.fields["input"]},)


@pytest.mark.parametrize(
    ("prompt", "capability", "said"),
    [
        ("few_shot_9", None, "no prompt is called 'few_shot_9'; expected one of zero_shot, few"),
        (
            "few_shot_3",
            None,
            "2 have a prompt 'few_shot_3'; expected --capability with one of team",
        ),
        ("few_shot_3", "nothing", "no capability or guard is called 'nothing'"),
        ("few_shot_2", "talking", "no prompt of talking is called 'few_shot_2'"),
        ("cot", None, "cot of team is filled with input, x, and a question is one text"),
    ],
)
def test_a_prompt_that_cannot_be_had(
    ws: OpenWorkspace, prompt: str, capability: str | None, said: str
) -> None:
    from pipeline.talk.asking import asking

    with pytest.raises(UserError, match=said):
        asking(ws, Ui(as_json=True), prompt, capability)


def test_what_cannot_be_asked_leaves_the_talk_as_it_was(talk: Talk) -> None:
    with pytest.raises(UserError, match=r"the prompt has \d+ tokens; expected fewer than 2048"):
        talk.ask("word " * 3000)
    with pytest.raises(UserError, match="nothing is asked"):
        talk.ask(" ")
    assert not any(side.asked for side in talk.sides)


FOUND = "SELECT split, source_line, meta->>'kept_from' FROM rows WHERE version_id = ? "


def test_an_answer_becomes_a_row_with_its_source(ws: OpenWorkspace, talk: Talk) -> None:
    for reply in talk.ask("Who wins the match of Monday?"):
        reply.end()
    path = ws.root / "data" / "dev.jsonl"
    before = path.read_text()
    with pytest.raises(UserError, match="none of the labels of teams; expected one of blue, red"):
        talk.keep("item", "team", answer="green")
    kept = talk.keep("item", "team", answer="red")
    assert str(kept) == f"kept in data/dev.jsonl:21, dev of teams {kept.version_id[:12]}"  # type: ignore[index]
    rows = ws.catalog.query(
        f"{FOUND} AND source_file = 'data/dev.jsonl' AND source_line = 21", [kept.version_id]
    ).rows
    [(split, line, source)] = rows
    assert (split, line) == ("dev", 21)
    assert source.startswith(f"chat with mine {talk.sides[0].who.id[:12]}, 20")  # type: ignore[index]
    assert source.endswith(", answer corrected")
    after = path.read_text()
    assert after.startswith(before + "\n")  # the last line had no end
    with pytest.raises(UserError, match="teams has this already"):
        talk.keep("item", "team", answer="red")
    assert path.read_text() == after
    # What is in the file is in the next version too.
    assert ingest(ws, Ui(as_json=True), ["teams"]).versions["teams"] == kept.version_id


@pytest.mark.parametrize(
    ("kind", "name", "file", "record"),
    [
        ("row", "teams", "data/teams.jsonl", {"q": "Who wins?", "a": "red"}),
        ("item", "talking", "data/talks/kept.jsonl", {"messages": [ASKED, SAID]}),
        (
            "row",
            "shares",
            "data/shares.jsonl",
            {
                "conversations": [
                    {"from": "human", "value": "Who wins?"},
                    {"from": "gpt", "value": "red"},
                ]
            },
        ),
    ],
)
def test_it_is_written_in_the_dataset_s_own_form(
    ws: OpenWorkspace, kind: Any, name: str, file: str, record: dict[str, Any]
) -> None:
    kept = keep(ws, Ui(as_json=True), kind, name, (ASKED, SAID), "a test")
    last = (ws.root / file).read_text().splitlines()[-1]
    assert json.loads(last) == {**record, "kept_from": "a test"}
    assert (kept.file, kept.split) == (file, kept.split)
    assert kept.version_id


def test_what_the_spec_does_not_have_yet_is_kept_apart(ws: OpenWorkspace) -> None:
    ui = Ui(as_json=True)
    kept = keep(ws, ui, "row", "new-one", (ASKED, SAID, ASKED, SAID), "a test")
    assert str(kept) == (
        "kept in data/kept/new-one.jsonl:1; to use it, add to gapmend.yaml: "
        "datasets: {new-one: {path: data/kept/new-one.jsonl}}"
    )
    assert keep(ws, ui, "row", "new-one", (ASKED, SAID), "a test").line == 2
    added = ws.spec.datasets["shares"].model_copy(update={"path": "data/kept/new-one.jsonl"})
    spec = ws.spec.model_copy(update={"datasets": {"new-one": added}})
    [made] = ingest(ws.with_spec(spec), ui, ["new-one"]).datasets
    assert made.facts["rows"] == 2
    with pytest.raises(UserError, match=r"no dataset can be called '\.\./x'"):
        keep(ws, ui, "row", "../x", (ASKED, SAID), "a test")


def test_what_has_no_place_is_refused(ws: OpenWorkspace) -> None:
    ui = Ui(as_json=True)
    with pytest.raises(UserError, match="the files of table are none that a line can be added to"):
        keep(ws, ui, "row", "table", (ASKED, SAID), "a test")
    with pytest.raises(UserError, match="this dataset holds single questions"):
        keep(ws, ui, "row", "teams", (ASKED, SAID, ASKED, SAID), "a test")
    with pytest.raises(UserError, match="this can't be a row"):
        keep(ws, ui, "row", "shares", (ASKED, {**SAID, "content": ""}), "a test")
    with pytest.raises(UserError, match="no capability or guard is called 'table'"):
        keep(ws, ui, "item", "table", (ASKED, SAID), "a test")


def test_commands(talk: Talk) -> None:
    commands = Commands(talk)
    with pytest.raises(UserError, match="/row wants the name of a dataset; expected /row NAME"):
        commands.run("/row")
    with pytest.raises(UserError, match="nothing was answered yet"):
        commands.run("/row apart")
    said = [reply.end() for reply in talk.ask("Who is there?")]
    for line, answer in (
        ("/row apart 2", said[1].text),
        ("/r = a = b", "a = b"),
        ("/row apart", said[0].text),
    ):
        kept: Any = commands.run(line)
        last = (talk._ws.root / kept.file).read_text().splitlines()[-1]
        assert json.loads(last)["messages"][-1]["content"] == answer
    assert "/quit" in str(commands.run("/help"))
    commands.run("/new")
    assert not talk.sides[0].exchanges
    assert commands.run("/quit") is False
    with pytest.raises(UserError, match="no command is called '/x'"):
        commands.run("/x y")


def test_lines_of_a_pipe_are_questions_of_their_own(talk: Talk) -> None:
    reading, writing = os.pipe()
    found = answered(talk, Lines(reading))
    os.write(writing, b"What is 3 plus 1?\n")
    first = next(found)  # though more may come
    assert [one.model for one in first.answers] == ["mine", "nano"]
    rest = b"\n\xff\n" + b"word " * 3000 + b"\nWhat is 3 plus 1?"

    def write() -> None:
        os.write(writing, rest)
        os.close(writing)

    threading.Thread(target=write).start()
    bad, long, again = found
    os.close(reading)
    assert bad.error is not None
    assert bad.error.message == "invalid UTF-8 at byte 0"
    assert long.error is not None
    assert long.as_json().keys() == {"prompt", "error"}
    assert _texts(again) == _texts(first)
    assert not talk.sides[0].exchanges


def _texts(line: Line) -> list[str]:
    said = [one for one in line.answers if isinstance(one, Said)]
    assert len(said) == len(line.answers) == 2
    return [one.written for one in said]


def test_what_acts_on_a_terminal_is_shown_however_it_is_split(talk: Talk) -> None:
    stream = Stream(Ask((1,)))
    for text in ("a\x1b", "[2J", "\x9b", "31m\r", "b"):
        stream.tell(Piece(text))
    stream.tell(Finish("stop", "a\x1b[2J\x9b31m\rb", 1, 5, 0.1, 0.2))
    console = open_console(file=StringIO(), width=100)
    written(console, Reply(talk.sides[0], "?", ASKED, stream))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown == (
        r"a\u001b[2J\u009b31m\u000db"
        "\n"
        "5 tokens in 0.20 s, the first after 0.10 s; 1 read\n"
    )


class Interrupted(StringIO):
    """A terminal at which Ctrl-C is pressed as the first text appears."""

    def write(self, text: str) -> int:
        done = super().write(text)
        if len(self.getvalue()) == done:
            raise KeyboardInterrupt
        return done


def test_ctrl_c_ends_an_answer_and_keeps_what_was_written(talk: Talk) -> None:
    one = Talk(talk._ws, talk._ui, talk._room, talk.sides[:1])
    one.drawing = Drawing(limit=1500, temperature=2.0, seed=5)
    console = open_console(file=Interrupted(), width=100)
    [said] = ask_shown(console, one, "On day 3 the red")
    assert isinstance(said, Said)
    assert said.reason in {"cancelled", "stop"}
    assert said.tokens < 1500
    assert one.sides[0].exchanges[-1].said == said


@pytest.mark.parametrize("width", [120, 60])
def test_two_stand_side_by_side_where_there_is_room(talk: Talk, width: int) -> None:
    console = open_console(file=StringIO(), width=width, height=20)
    said = ask_shown(console, talk, "What is 2 plus 1?")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    heads = [line for line in shown.splitlines() if "mine" in line]
    assert ("nano" in heads[0]) == (width == 120)
    assert len(said) == 2
    assert all(isinstance(one, Said) and f"{one.tokens} token" in shown for one in said)


@pytest.mark.parametrize("width", [120, 60])
@pytest.mark.parametrize("side", [0, 1])
def test_one_that_fails_hides_nothing_of_the_other(talk: Talk, width: int, side: int) -> None:
    talk.sides[side].asked.append({"role": "user", "content": "word " * 3000})
    console = open_console(file=StringIO(), width=width, height=20)
    done = ask_shown(console, talk, "What is 2 plus 1?")
    failed, other = done[side], done[1 - side]
    assert isinstance(failed, Failed)
    assert isinstance(other, Said)
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert f"{other.tokens} token" in shown
    assert "gapmend: the prompt" in shown
    assert len(talk.sides[1 - side].exchanges) == 1
    assert not talk.sides[side].exchanges
    line = ended("?", [Reply.refused(talk.sides[0], "?", failed.error, None), *_asked(talk)])
    assert line.error is None
    told = line.as_json()["answers"]
    assert told[0].as_json() == {"model": "mine", "error": failed.error.record()}
    assert told[1].tokens > 0
    assert failures(line) == [f"mine: {failed.error}"]
    assert texts(line) == [f"nano: {told[1].text}"]


def _asked(talk: Talk) -> list[Reply]:
    return talk.ask_apart("What is 2 plus 1?")[1:]
