"""LLaMA-Factory's folders: its rules, and one clear line for each entry that can't be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.datasets.formats.content import Content
from registry.datasets.formats.turns import UnusableError
from registry.datasets.sources.llamafactory import read_entry
from registry.errors import UserError

ALPACA = {"instruction": "i", "input": "q", "output": "a", "system": "s"}


def entry(tmp_path: Path, **described: Any):
    (tmp_path / "rows.json").write_text("[]")
    info = {"entry": {"file_name": "rows.json"} | described}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    return read_entry(tmp_path, "entry")


def said(content: Content) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in content.messages]


def test_without_a_columns_block_the_defaults_hold_and_system_is_none(tmp_path: Path) -> None:
    form = entry(tmp_path).format
    assert said(form.content(ALPACA)) == [("user", "i\nq"), ("assistant", "a")]
    assert json.loads(form.meta(ALPACA)) == {"system": "s"}


def test_with_a_columns_block_an_unlisted_key_is_none_and_not_its_default(tmp_path: Path) -> None:
    form = entry(tmp_path, columns={"prompt": "instruction", "response": "output"}).format
    assert said(form.content(ALPACA)) == [("user", "i"), ("assistant", "a")]
    assert json.loads(form.meta(ALPACA)) == {"input": "q", "system": "s"}


def test_tags_rename_roles_and_a_leading_system_turn_overrides_the_column(tmp_path: Path) -> None:
    tags = {"role_tag": "role", "content_tag": "text", "user_tag": "U", "assistant_tag": "A"}
    form = entry(
        tmp_path,
        formatting="sharegpt",
        columns={"messages": "m", "system": "sys"},
        tags={**tags, "system_tag": "S"},
    ).format
    turns = [{"role": "U", "text": "q"}, {"role": "A", "text": "a"}]
    both = {"m": [{"role": "S", "text": "from turn"}, *turns], "sys": "from column"}
    assert said(form.content(both))[0] == ("system", "from turn")
    assert said(form.content({"m": turns, "sys": "from column"}))[0] == ("system", "from column")
    with pytest.raises(UnusableError, match="unknown role: 'human'"):
        form.content({"m": [{"role": "human", "text": "q"}], "sys": None})


def test_a_tags_block_takes_only_the_roles_it_lists(tmp_path: Path) -> None:
    form = entry(
        tmp_path, formatting="sharegpt", tags={"user_tag": "human", "assistant_tag": "gpt"}
    )
    call = [{"from": "human", "value": "q"}, {"from": "function_call", "value": "{}"}]
    with pytest.raises(UnusableError, match="unknown role: 'function_call'"):
        form.format.content({"conversations": call})


def test_ranked_pairs_and_thumbs(tmp_path: Path) -> None:
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    form = entry(tmp_path, formatting="sharegpt", ranking=True, columns=columns).format
    ask = [{"from": "human", "value": "q"}]
    good, bad = ({"from": "gpt", "value": text} for text in ("good", "bad"))
    pair = form.content({"conversations": ask, "chosen": good, "rejected": bad})
    assert (pair.kind, pair.chosen and pair.chosen[0].content) == ("preference", "good")
    thumbs = {"messages": "conversations", "kto_tag": "label"}
    form = entry(tmp_path, formatting="sharegpt", columns=thumbs).format
    judged = form.content({"conversations": [*ask, good], "label": False})
    assert (judged.kind, judged.label) == ("feedback", False)
    with pytest.raises(UnusableError, match="label is not true or false: 'yes'"):
        form.content({"conversations": [*ask, good], "label": "yes"})


def test_a_folder_is_read_file_by_file_and_samples_are_counted(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name in ("b.jsonl", "a.jsonl", ".hidden"):
        (tmp_path / "many" / name).write_text("")
    found = entry(tmp_path, file_name="many", num_samples=5)
    assert [name for _, name in found.files] == ["many/a.jsonl", "many/b.jsonl"]
    assert found.num_samples == 5


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"file_name": "gone.json"}, r"entry 'entry': its file gone\.json is missing"),
        ({"hf_hub_url": "a/b/c"}, "hf_hub_url is 'a/b/c'; expected owner/name"),
        ({"hf_hub_url": "me/rows", "split": "train[:9]"}, r"split is 'train\[:9\]'"),
        ({"ms_hub_url": "me/rows"}, "its rows are at ms_hub_url me/rows, and that hub isn't asked"),
        ({"script_url": "me.py"}, r"its rows are at script_url me\.py"),
        ({"columns": {"messages": "m", "images": "i"}}, "it needs images; only text is read"),
        ({"formatting": "parquet"}, "unknown formatting 'parquet'"),
        ({"ranking": True}, "ranking needs the columns chosen and rejected"),
        ({"columns": {"response": "a"}}, "its columns name no prompt"),
        ({"num_samples": 0}, "num_samples is 0"),
    ],
)
def test_an_entry_that_cannot_be_read_is_one_line(
    tmp_path: Path, described: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        entry(tmp_path, **described)
    assert "\n" not in str(raised.value)


def test_a_misspelt_entry_names_the_nearest(tmp_path: Path) -> None:
    entry(tmp_path)
    with pytest.raises(UserError, match=r"no entry 'entri'.*Did you mean 'entry'"):
        read_entry(tmp_path, "entri")
    with pytest.raises(UserError, match="expected a LLaMA-Factory data folder"):
        read_entry(tmp_path / "no", "entry")
