"""Every error of a spec names file, line and key, what was given and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evals.tasks.capability import GuardSpec
from pipeline.spec.errors import InvalidSpecError
from pipeline.spec.spec import Spec, load_spec
from registry.errors import UserError

GOOD = """\
bases: {nano: {model: nano}}
datasets:
  rows:
    path: rows.csv
    columns: {input: text, output: label}
capabilities:
  intent:
    data: rows
    answer: choice
    goal: 0.8
train: {base: nano, pool: [rows]}
"""


def loaded(tmp_path: Path, text: str) -> Spec:
    path = tmp_path / "gapmend.yaml"
    path.write_text(text, encoding="utf-8")
    return load_spec(path)


def errors(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(InvalidSpecError) as raised:
        loaded(tmp_path, text)
    return str(raised.value).split("\n")


def test_a_good_spec_has_its_defaults_and_is_frozen(tmp_path: Path) -> None:
    spec = loaded(tmp_path, GOOD)
    assert spec.mend.rounds == 3
    assert spec.evals.backend == "gapmend"
    assert spec.guards == {}
    assert spec.datasets["rows"].allow_rejects == 0.01
    with pytest.raises(ValidationError):
        spec.mend = None  # type: ignore[assignment, misc]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "goal: 0.8",
            "gaol: 0.8",
            (
                "gapmend.yaml:10: capabilities.intent.gaol: unknown key; expected one of prompts, "
                "labels, pattern, limit, max_new_tokens, data, answer, goal, margin; did you "
                "mean 'goal'?"
            ),
        ),
        (
            "answer: choice",
            "answer: choise",
            (
                'gapmend.yaml:9: capabilities.intent.answer: given "choise"; expected choice, '
                "exact, number, regex, contains, f1, rouge, perplexity, python:module:function; "
                "did you mean 'choice'?"
            ),
        ),
        (
            "goal: 0.8",
            "goal: 80",
            "gapmend.yaml:10: capabilities.intent.goal: given 80; expected at most 1",
        ),
        (
            "goal: 0.8",
            "goal: 80%",
            'gapmend.yaml:10: capabilities.intent.goal: given "80%"; expected a number',
        ),
        (
            "data: rows",
            "data: row",
            (
                "gapmend.yaml:8: capabilities.intent.data: no dataset is called 'row'; expected "
                "one of "
                "rows; did you mean 'rows'?"
            ),
        ),
        (
            "train:",
            "evals: {backend: vlm}\ntrain:",
            (
                'gapmend.yaml:11: evals.backend: given "vlm"; expected gapmend, vllm; did you '
                "mean 'vllm'?"
            ),
        ),
        (
            "base: nano",
            "base: nani",
            (
                "gapmend.yaml:11: train.base: no base is called 'nani'; expected one of nano; "
                "did you mean 'nano'?"
            ),
        ),
        (
            "pool: [rows]",
            "pool: [rows, more]",
            "gapmend.yaml:11: train.pool.1: no dataset is called 'more'; expected one of rows",
        ),
        (
            "path: rows.csv",
            "path: {train: a.csv, tset: b.csv}",
            (
                "gapmend.yaml:4: datasets.rows.path.tset: unknown key; expected one of train, dev, "
                "test; did you mean 'test'?"
            ),
        ),
        (
            "path: rows.csv",
            "path: [rows.csv]",
            'gapmend.yaml:4: datasets.rows.path: given ["rows.csv"]; expected a text or a mapping',
        ),
        (
            "path: rows.csv",
            "path: $HOME/rows.csv",
            (
                "gapmend.yaml:4: datasets.rows.path: '$HOME/rows.csv' has a dollar sign; expected "
                "variables as ${NAME} alone"
            ),
        ),
        (
            "model: nano",
            "model: owner/name, revision: 0123456",
            (
                "gapmend.yaml:1: bases.nano.revision: given 0123456; expected a text; "
                'quote it: "0123456"'
            ),
        ),
        (
            "path: rows.csv",
            "path: ${HF_TOKEN}/rows.csv",
            (
                "gapmend.yaml:4: datasets.rows.path: '${HF_TOKEN}/rows.csv' names HF_TOKEN, which "
                "is a secret by its name; a variable holds a path that starts with / or a dot, as "
                "in: export DATA=/path/to/folder"
            ),
        ),
        (
            "path: rows.csv",
            "path: ${GAPMEND_NO}/rows.csv",
            (
                "gapmend.yaml:4: datasets.rows.path: '${GAPMEND_NO}/rows.csv' needs the "
                "environment "
                "variable GAPMEND_NO, which is not set; set it, as in: export "
                "GAPMEND_NO=/path/to/folder"
            ),
        ),
        (
            "path: rows.csv",
            "path: rows.csv\n    format: alpca",
            (
                'gapmend.yaml:5: datasets.rows.format: given "alpca"; expected columns, alpaca, '
                "sharegpt, messages, prompt_completion, text, preference, feedback, llamafactory; "
                "did you mean 'alpaca'?"
            ),
        ),
        (
            "    path: rows.csv\n",
            "",
            (
                "gapmend.yaml:3: datasets.rows: it needs one of path, hub and sql, where its rows "
                "are"
            ),
        ),
        (
            "    goal: 0.8\n",
            "    goal: 0.8\n    goal: 0.9\n",
            "gapmend.yaml:11: capabilities.intent.goal: this key is repeated (first in line 10)",
        ),
        (
            "    goal: 0.8\n",
            "    goal: 0.8\n    prompts: {zero_shot: 'Which {in put'}\n",
            (
                "gapmend.yaml:11: capabilities.intent.prompts.zero_shot: a prompt that names no "
                "column, such as {input}, asks every item the same"
            ),
        ),
        (
            "{model: nano}",
            "{model: nano, quantize: int4}",
            (
                'gapmend.yaml:1: bases.nano.quantize: given "int4"; expected nf4, fp4, int8; did '
                "you "
                "mean 'int8'?"
            ),
        ),
        (
            "bases: {nano:",
            "bases: {na no:",
            (
                "gapmend.yaml:1: bases.na no: not a usable name; expected letters, digits, '_', "
                "'-' "
                "and '.'"
            ),
        ),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert old in GOOD
    assert errors(tmp_path, GOOD.replace(old, new)) == [line]


def test_several_mistakes_are_all_listed_one_a_line(tmp_path: Path) -> None:
    text = GOOD.replace("answer: choice", "answer: 7").replace("base: nano", "bass: nano")
    lines = errors(tmp_path, text.replace("path:", "paht:"))
    assert [line.split(": ")[1] for line in lines] == [
        "datasets.rows.paht",
        "capabilities.intent.answer",
        "train.bass",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gapmend.yaml:1: the file is empty; expected keys such as bases"),
        ("- a", "gapmend.yaml:1: not a mapping of keys"),
        ("a: [1\nb: 2", "gapmend.yaml:2: not YAML"),
        ("a: !!python/name:os.system x", "gapmend.yaml:1: not YAML: could not determine"),
        ("a: &x [*x]", "gapmend.yaml"),
        ("\0a: 1", "gapmend.yaml: not YAML: unacceptable character"),
    ],
)
def test_what_is_no_spec_at_all_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        loaded(tmp_path, text)
    assert message in str(raised.value).split("\n")[0]


def test_invalid_utf8_says_where(tmp_path: Path) -> None:
    (tmp_path / "gapmend.yaml").write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="invalid UTF-8 at byte 3"):
        load_spec(tmp_path / "gapmend.yaml")


def test_keys_are_texts_as_they_are_written(tmp_path: Path) -> None:
    text = GOOD.replace("  rows:\n", "  on:\n").replace("data: rows", "data: 'on'")
    assert list(loaded(tmp_path, text.replace("[rows]", "['on']")).datasets) == ["on"]


def test_labels_from_a_file_are_in_the_spec(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["a", "b"]')
    spec = loaded(tmp_path, GOOD.replace("goal:", "labels: labels.json\n    goal:"))
    assert spec.capabilities["intent"].labels == ("a", "b")
    (line,) = errors(tmp_path, GOOD.replace("goal:", "labels: gone.json\n    goal:"))
    assert line.startswith("gapmend.yaml:10: capabilities.intent.labels: gone.json: can't read")


def test_a_variable_is_replaced_in_a_base_and_kept_in_a_path(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GAPMEND_HERE", str(tmp_path))
    text = GOOD.replace("model: nano", "model: '${GAPMEND_HERE}/m'").replace(
        "path: rows.csv", "path: ${GAPMEND_HERE}/rows.csv"
    )
    spec = loaded(tmp_path, text)
    assert spec.bases["nano"].model == f"{tmp_path}/m"
    assert spec.datasets["rows"].path == "${GAPMEND_HERE}/rows.csv"


def test_what_is_no_path_gets_into_no_message(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GAPMEND_HERE", "made-up-key-of-a-service")
    text = GOOD.replace("model: nano", "model: '${GAPMEND_HERE}'").replace(
        "path: rows.csv", "path: ${GAPMEND_HERE}"
    )
    with pytest.raises(UserError) as raised:
        loaded(tmp_path, text)
    assert "bases.nano.model: '${GAPMEND_HERE}': the value of GAPMEND_HERE is neither" in str(
        raised.value
    )
    assert "datasets.rows.path: '${GAPMEND_HERE}': the value of GAPMEND_HERE is no" in str(
        raised.value
    )
    assert "made-up" not in str(raised.value)
    monkeypatch.setenv("GAPMEND_HERE", "owner/name")
    (tmp_path / "rows.csv").touch()
    hub = GOOD.replace("model: nano", "model: '${GAPMEND_HERE}'")
    assert loaded(tmp_path, hub).bases["nano"].model == "owner/name"


def test_the_json_schema_names_every_part() -> None:
    schema = Spec.json_schema()
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert schema["additionalProperties"] is False


KEYS = st.sampled_from(
    ["bases", "datasets", "capabilities", "guards", "train", "path", "data", "base", "x", "goal"]
)
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, YAML, max_size=6))
def test_any_yaml_is_a_spec_or_lines_that_name_the_file(tmp_path_factory, value) -> None:
    import yaml

    path = tmp_path_factory.getbasetemp() / "gapmend.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    with pytest.raises(UserError) as raised:  # none of these is whole
        load_spec(path)
    lines = str(raised.value).split("\n")
    assert all(line.startswith(("gapmend.yaml:", str(path))) for line in lines)


def test_the_docs_name_every_key(project_root: Path) -> None:
    text = (project_root / "docs" / "reference" / "spec.md").read_text(encoding="utf-8")
    models = Spec.json_schema()["$defs"] | {"Spec": Spec.json_schema()}
    keys = {key for model in models.values() for key in model.get("properties", {})}
    missing = {key for key in keys if f"`{key}`" not in text and f".{key}`" not in text}
    assert missing - set(Spec.model_fields) - {"dev", "test"} == set()
    assert all(f"{section}" in text for section in Spec.model_fields)


GUARDED = """\
  {a}: {{data: a, answer: exact{a_says}}}
  {b}: {{data: b, answer: exact{b_says}}}
  {c}: {{data: {c_data}, answer: exact{c_says}}}
"""


def guarded(tmp_path: Path, *says: str, c_data: str = "c", names: str = "abc") -> Spec:
    """A spec of three guards, each with more keys of its own."""
    more = "".join(f"  {name}: {{path: {name}.csv}}\n" for name in "abc")
    text = GOOD.replace("datasets:\n", f"datasets:\n{more}")
    text = text.replace("train:", "guards:\n%s\ntrain:")
    a, b, c = (f", {one}" if one else "" for one in says)
    named = dict(zip("abc", names, strict=True))
    told = GUARDED.format(**named, a_says=a, b_says=b, c_says=c, c_data=c_data)
    return loaded(tmp_path, text % told)


def test_of_three_guards_the_last_that_may_be_is_a_witness(tmp_path: Path) -> None:
    assert loaded(tmp_path, GOOD).witnesses == set()
    assert guarded(tmp_path, "", "", "").witnesses == {"c"}
    assert guarded(tmp_path, "", "", "", names="cba").witnesses == {"a"}  # by the spec's order
    assert guarded(tmp_path, "", "", "replay: true").witnesses == {"b"}
    assert guarded(tmp_path, *["replay: true"] * 3).witnesses == set()
    assert guarded(tmp_path, "replay: false", "", "").witnesses == {"a"}
    assert guarded(tmp_path, "replay: false", "replay: false", "").witnesses == {"a", "b"}
    assert guarded(tmp_path, "", *["replay: false"] * 2, c_data="b").witnesses == {"b", "c"}
    # Rows that a capability or another guard may be trained on are no witness's.
    assert guarded(tmp_path, "", "", "", c_data="rows").witnesses == {"b"}
    assert guarded(tmp_path, "", "", "", c_data="b").witnesses == {"a"}


def test_two_guards_have_no_witness_unless_one_is_named(tmp_path: Path) -> None:
    spec = guarded(tmp_path, "", "", "")
    two = {name: spec.guards[name] for name in "ab"}
    assert spec.model_copy(update={"guards": two}).witnesses == set()
    task = {"t": GuardSpec(lm_eval="arc_easy", replay=False)}
    assert spec.model_copy(update={"guards": two | task}).witnesses == {"t"}


def test_a_witness_has_rows_of_its_own_and_a_task_has_none_to_replay(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError) as raised:
        guarded(tmp_path, "", "", "replay: false", c_data="rows")
    assert str(raised.value) == (
        "gapmend.yaml:17: guards.c.replay: 'c' is to be a witness, and rows of its dataset 'rows' "
        "may be trained on for intent; expected a dataset of its own"
    )
    with pytest.raises(ValidationError, match="replay: true needs data"):
        GuardSpec(lm_eval="arc_easy", replay=True)
