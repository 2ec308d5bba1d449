"""Adapters and models from outside: taken in whole and measured like ours, or refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.cli.main import main
from pipeline.cli.verb import json_line
from pipeline.forget import changed_items, forget, other_base, tuned
from pipeline.merge import merge
from pipeline.verbs import adapter as verbs
from pipeline.verbs.pull import take
from pipeline.verbs.push import push
from pipeline.verbs.reproduce import reproduce
from pipeline.workspace.alias import tag
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.readers.read import read_records
from registry.errors import GapmendError, GateRefusedError, UserError
from registry.intake.template import check_text
from registry.models.load import nano_folder
from tests.support.tiny_models import save_adapter

STARTER = Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for nano as PEFT saves it, with a path of its maker's machine in it."""
    folder = save_adapter(tmp_path_factory.mktemp("made") / "theirs", nano_folder())
    shutil.copy(nano_folder() / "chat_template.jinja", folder)
    return folder


@pytest.fixture
def adapter(theirs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(theirs, tmp_path / "theirs"))


@pytest.fixture
def ws(tmp_path: Path) -> OpenWorkspace:
    shutil.copytree(STARTER, tmp_path / "workspace")
    spec = tmp_path / "workspace" / "gapmend.yaml"
    small = spec.read_text("utf-8").replace("answer: choice  ", "answer: choice\n    limit: 40  ")
    spec.write_text(small, "utf-8")
    return OpenWorkspace.open(tmp_path / "workspace")


@pytest.fixture
def ui() -> Ui:
    return Ui(as_json=True)


def change(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def test_one_trained_elsewhere_is_measured_like_ours(
    ws: OpenWorkspace, ui: Ui, adapter: Path
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"].startswith("/")
    made = take(ws, ui, str(adapter))
    assert (made.kind, made.base, made.same) == ("adapter", "nano", None)
    facts = verbs.show(ws, made.object_id)
    assert facts.base == "nano"
    assert facts.meta["origin"] == "theirs"
    assert str(adapter.parent) not in json_line(facts)
    report = forget(ws, ui, tuned(ws, made.object_id))
    assert report.closed["routing"].verdict == "open"
    with pytest.raises(UserError, match="was not trained here"):
        reproduce(ws, ui, made.object_id)
    with pytest.raises(GateRefusedError, match="champion moves to an adapter that promote"):
        tag(ws, made.object_id, "champion")
    assert take(ws, ui, str(adapter)).cached
    with pytest.raises(UserError, match=r"the licence of adapter \w+ is not known"):
        push(ws, ui, made.object_id, repo="me/theirs", dry=True)


def test_its_card_says_that_it_was_trained_elsewhere(
    ws: OpenWorkspace, ui: Ui, adapter: Path
) -> None:
    (adapter / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    made = take(ws, ui, str(adapter))
    pushed = push(ws, ui, made.object_id, repo="me/theirs", dry=True)
    assert "Not known: it was trained elsewhere." in pushed.card
    assert "license: cc-by-nc-4.0" in pushed.card


def called(capsys: pytest.CaptureFixture[str]) -> tuple[object, str, list[tuple[str, str | None]]]:
    """What `gapmend adapter log --json` leaves: exit code, stderr, and the moves, from where to."""
    sys.argv.append("--json")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    answer = json.loads(out)
    moves = answer if isinstance(answer, list) else []
    return ended.value.code, err, [(one["target"], one["previous"]) for one in moves]


def test_aliases_move_by_compare_and_set(
    ws: OpenWorkspace,
    ui: Ui,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = take(ws, ui, str(adapter)).object_id
    weights = load_file(adapter / WEIGHTS)
    save_file({k: v * 2 for k, v in weights.items()}, adapter / WEIGHTS, {"format": "pt"})
    second = take(ws, ui, str(adapter)).object_id
    assert tag(ws, first, "candidate", expect="none").previous is None
    assert tag(ws, second, "candidate", expect=first).previous == first
    with pytest.raises(GapmendError, match="moved meanwhile"):
        tag(ws, first, "candidate", expect=first)
    forced = tag(ws, second, "champion", force=True, reason="the old one broke")
    assert forced.reason == "forced: the old one broke"
    (move,) = verbs.log(ws, "champion")
    assert (move.target, move.previous, move.reason) == (second, None, "forced: the old one broke")
    monkeypatch.setattr(sys, "argv", ["gapmend", "adapter", "log", "candidate", "-C", str(ws.root)])
    assert called(capsys) == (0, "", [(first, None), (second, first)])
    monkeypatch.setattr(sys, "argv", [*sys.argv[:3], "nobody", "-C", str(ws.root)])
    code, said, moves = called(capsys)
    assert (code, moves) == (2, [])
    assert said.startswith("gapmend: no adapter was ever called 'nobody'; expected an alias")
    with pytest.raises(UserError, match="is candidate and champion"):
        verbs.remove(ws, second)
    assert verbs.remove(ws, first, reason="a try") == first
    with pytest.raises(UserError, match="was set aside: a try"):
        tuned(ws, first)
    assert tuned(ws, None).adapter_id == second


def test_a_diff_says_how_far_apart(ws: OpenWorkspace, ui: Ui, adapter: Path) -> None:
    first = take(ws, ui, str(adapter)).object_id
    weights = load_file(adapter / WEIGHTS)
    doubled = {k: v * 2 if "lora_B" in k else v for k, v in weights.items()}
    save_file(doubled, adapter / WEIGHTS, {"format": "pt"})
    found = verbs.diff(ws, first, take(ws, ui, str(adapter)).object_id)
    assert found.same_base
    assert list(found.weights.values()) == pytest.approx([1.0] * len(found.weights))
    assert len(found.weights) == len(weights) // 2


def test_a_merged_model_is_measured_like_the_adapter_in_it(
    ws: OpenWorkspace, ui: Ui, adapter: Path
) -> None:
    made = take(ws, ui, str(adapter)).object_id
    merged = merge(ws, ui, made)
    spec = ws.root / "gapmend.yaml"
    base = f"bases:\n  both: {{model: 'merged:{merged.model_id[:10]}'}}\n"
    spec.write_text(spec.read_text("utf-8").replace("bases:\n", base, 1), "utf-8")
    again = OpenWorkspace.open(ws.root)
    model = forget(again, ui, other_base(again, "both"))
    tune = forget(again, ui, tuned(again, made))
    assert model.model == "both"
    changes = [
        (one.changes["routing"].lost, one.changes["routing"].gained) for one in (model, tune)
    ]
    assert changes[0] == changes[1] != (0, 0)
    assert model.closed == tune.closed
    assert changed_items(again, ui, model, "lost") == changed_items(again, ui, tune, "lost")


def test_a_merge_of_several_is_pushed_with_all_their_names(
    ws: OpenWorkspace, ui: Ui, adapter: Path
) -> None:
    (adapter / "README.md").write_text("---\nlicense: mit\n---\n")
    first = take(ws, ui, str(adapter)).object_id
    weights = load_file(adapter / WEIGHTS)
    save_file({k: v / 2 for k, v in weights.items()}, adapter / WEIGHTS, {"format": "pt"})
    second = take(ws, ui, str(adapter)).object_id
    merged = merge(ws, ui, [first, second], method="cat", weights=[0.7, 0.3])
    model = push(ws, ui, merged.model_id, repo="me/both", dry=True)
    assert f"adapters `{first[:12]}`, `{second[:12]}` (cat) merged" in model.card
    assert push(ws, ui, merged.adapter_id, repo="me/both", dry=True).kind == "adapter"


def spoil_missing(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.pop(next(name for name in weights if "lora_B" in name))
    save_file(weights, folder / WEIGHTS)


def spoil_left_over(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({k.replace("model.layers", "model.lagers"): v for k, v in weights.items()},
              folder / WEIGHTS)  # fmt: skip


def spoil_shape(folder: Path) -> None:
    change(folder, r=8)


def spoil_nan(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights[next(iter(weights))][0, 0] = torch.nan
    save_file(weights, folder / WEIGHTS)


def spoil_base(folder: Path) -> None:
    change(folder, base_model_name_or_path="someone/else")


def spoil_code(folder: Path) -> None:
    change(folder, auto_mapping={"base_model_class": "X", "parent_library": "os"})


def spoil_template(folder: Path) -> None:
    text = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (folder / "chat_template.jinja").write_text(text)


def spoil_way_of_asking(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }} =>")


def spoil_tokens(folder: Path) -> None:
    shutil.copy(nano_folder() / "tokenizer.json", folder)
    path = folder / "tokenizer.json"
    given = json.loads(path.read_text("utf-8"))
    *_, first, second = vocab = given["model"]["vocab"]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(given), "utf-8")


def spoil_end(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<end>"}}))


def spoil_record(folder: Path) -> None:
    record = {"format": 1, "kind": "adapter", "id": "0" * 64, "identity": {}}
    record["files"] = {"../../secret": "0" * 64}
    (folder / "gapmend.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, "missing: base_model.model"),
        (spoil_left_over, "no place in the base: base_model.model.model.lagers"),
        (spoil_shape, "of another shape"),
        (spoil_nan, "has values that are not finite"),
        (spoil_base, "it was trained on someone/else, which is no base of the spec"),
        (spoil_code, "auto_mapping makes the loader run the code it names"),
        (spoil_template, "the chat template is refused: it reaches for __"),
        (spoil_way_of_asking, "in another way than base nano: its chat template is not the base's"),
        (spoil_tokens, "it was trained with another tokenizer than base nano's: 2 tokens differ"),
        (spoil_end, 'its text ends with "<end>", the base\'s with'),
        (spoil_record, "it names an id that is not that of what it describes"),
    ],
)
def test_what_does_not_fit_is_refused(
    ws: OpenWorkspace, ui: Ui, adapter: Path, spoil: Any, message: str
) -> None:
    spoil(adapter)
    with pytest.raises(UserError) as raised:
        take(ws, ui, str(adapter))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not ws.catalog.committed("adapter")


def test_a_base_that_is_named_is_meant(ws: OpenWorkspace, ui: Ui, adapter: Path) -> None:
    spoil_base(adapter)  # a mirror of the same weights
    spoil_way_of_asking(adapter)
    made = take(ws, ui, str(adapter), base="nano")
    assert made.base == "nano"
    assert made.remarks == ("its chat template is not the base's",)
    assert verbs.show(ws, made.object_id).config["base_model_name_or_path"] == "nano"
    spoil_tokens(adapter)
    with pytest.raises(UserError, match="another tokenizer than base nano's"):
        take(ws, ui, str(adapter), base="nano")


def test_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.intake.template._SECONDS", 2)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
    # By the processor's time: by the clock a busy machine would end what is only slow.
    with pytest.raises(UserError, match="the chat template takes too much time or memory"):
        check_text(loops, "here")


@pytest.mark.parametrize(
    "template",
    [
        "{% if tools is defined and 0 %}{{ messages.__class__ }}{% endif %}",
        "{% if messages[0]['content'] == 'magic' %}{{ messages['__class__'] }}{% endif %}",
        "{% if never %}{{ messages | attr('__class__') }}{% endif %}",
        "{% if tools %}{{ ''['_' ~ '_class_' ~ '_'].mro() }}{% endif %}",
        "{% if messages[0].role == 'system' %}{{ ''['_' ~ '_class_' ~ '_'].mro() }}{% endif %}",
        "{% if not add_generation_prompt %}{{ ''['_' ~ '_class_' ~ '_'].mro() }}{% endif %}",
    ],
)
def test_what_a_template_does_with_other_turns_is_seen(template: str) -> None:
    with pytest.raises(UserError, match="the chat template is refused"):
        check_text(template, "here")


def test_a_template_that_refuses_turns_is_no_attack() -> None:
    check_text("{{ raise_exception('only one turn') }}", "here")


def test_a_parquet_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 1 << 27), ["x"])
    pq.write_table(pa.table({"text": column}), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="that unpack to"):
        next(read_records(path))


def test_what_was_set_aside_is_not_taken_in_again(ws: OpenWorkspace, ui: Ui, adapter: Path) -> None:
    made = take(ws, ui, str(adapter)).object_id
    verbs.remove(ws, made, reason="it lost too much")
    with pytest.raises(UserError, match="was set aside: it lost too much"):
        take(ws, ui, str(adapter))
