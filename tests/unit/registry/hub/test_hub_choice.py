"""Which of a repository's files are rows of which split: by its card, or by the names."""

from __future__ import annotations

from typing import Any

import pytest

from registry.errors import UserError
from registry.hub.dataset_splits import choose

SHARDS = [
    *(f"data/train_sft-0000{n}-of-00002.parquet" for n in range(2)),
    "data/test_sft-00000-of-00001.parquet",
    "README.md",
]


def chosen(
    names: list[str],
    splits: dict[str, str] | None = None,
    card: dict[str, Any] | None = None,
    subset: str | None = None,
    folder: str | None = None,
) -> dict[str, list[str]]:
    return choose(names, card or {}, subset, folder, splits or {"train": "train"}, "me/rows@c0ffee")


def refused(*given: Any, **named: Any) -> str:
    with pytest.raises(UserError) as raised:
        chosen(*given, **named)
    return str(raised.value)


def test_shards_are_named_by_their_split_whatever_it_is_called() -> None:
    assert chosen(SHARDS, {"train": "train_sft", "test": "test_sft"}) == {
        "train": SHARDS[:2],
        "test": SHARDS[2:3],
    }
    assert refused(SHARDS) == (
        "me/rows@c0ffee: no split 'train'; expected one of its splits: train_sft, test_sft"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.csv", "dev.csv", "test.csv"], {"train": ["train.csv"], "test": ["test.csv"]}),
        (["train/a.jsonl", "eval/a.jsonl"], {"train": ["train/a.jsonl"], "test": ["eval/a.jsonl"]}),
        (["my-training.json.gz", "my_test.json.zst"], None),
    ],
)
def test_words_in_names_say_the_split(names: list[str], expected: dict[str, list[str]]) -> None:
    found = chosen(names, {"train": "train", "test": "test"})
    assert found == (expected or {"train": names[:1], "test": names[1:]})


def test_without_a_word_everything_is_train_and_what_is_no_data_is_not_fetched() -> None:
    names = [
        "rows.parquet",
        "more/x.JSONL",
        "rows.py",
        "a.bin",
        ".git/x.json",
        "dataset_infos.json",
    ]
    assert chosen(names) == {"train": ["more/x.JSONL", "rows.parquet"]}


def test_a_split_called_validation_may_be_our_dev() -> None:
    names = ["train.csv", "valid.csv"]
    assert chosen(names, {"train": "train", "dev": "validation"}) == {
        "train": ["train.csv"],
        "dev": ["valid.csv"],
    }


CARD = {
    "configs": [
        {
            "config_name": "en",
            "data_files": [
                {"split": "train", "path": "en/part-*"},
                {"split": "test", "path": ["en/held/*.parquet"]},
            ],
        },
        {"config_name": "zh", "data_dir": "zh", "data_files": "**/*.json"},
        {"config_name": "bare", "data_dir": "bare"},
    ]
}
NAMES = [
    "en/part-1.parquet",
    "en/part-2.parquet",
    "en/held/x.parquet",
    "zh/a.json",
    "zh/deep/b.json",
    "bare/train.csv",
    "bare/test.csv",
]


def test_the_card_says_subsets_and_their_files() -> None:
    assert chosen(NAMES, card=CARD, subset="en") == {
        "train": ["en/part-1.parquet", "en/part-2.parquet"]
    }
    assert chosen(NAMES, {"test": "test"}, CARD, "en") == {"test": ["en/held/x.parquet"]}
    assert chosen(NAMES, card=CARD, subset="zh") == {"train": ["zh/a.json", "zh/deep/b.json"]}
    assert chosen(NAMES, {"test": "test"}, CARD, "bare") == {"test": ["bare/test.csv"]}
    assert refused(NAMES, card=CARD).endswith("expected subset: one of en, zh, bare")
    assert refused(NAMES, card=CARD, subset="fr").endswith(
        "no subset 'fr'; expected one of en, zh, bare"
    )


def test_the_default_subset_is_marked_called_so_or_the_only_one() -> None:
    first = {"config_name": "a", "data_files": "en/part-1.parquet"}
    other = {"config_name": "default", "data_files": "zh/a.json"}
    marked = {"config_name": "c", "default": True, "data_files": "bare/test.csv"}
    for configs, expected in (
        ([first], "en/part-1.parquet"),
        ([first, other], "zh/a.json"),
        ([first, other, marked], "bare/test.csv"),
    ):
        assert chosen(NAMES, card={"configs": configs}) == {"train": [expected]}


def test_without_a_card_a_subset_is_a_folder() -> None:
    assert chosen(NAMES, {"test": "test"}, subset="bare") == {"test": ["bare/test.csv"]}
    assert refused(NAMES, subset="fr").endswith("one of its folders: bare, en, zh")


def test_a_folder_limits_the_files() -> None:
    assert chosen(NAMES, folder="zh/") == {"train": ["zh/a.json", "zh/deep/b.json"]}


def test_a_repository_without_data_says_so_and_a_script_is_named() -> None:
    assert "it has no data files" in refused(["README.md"])
    told = refused(["README.md", "rows.py"])
    assert "made by a script (rows.py), and a dataset's script is never run" in told
    assert "refs/convert/parquet" in told


def test_a_card_of_another_kind_is_passed_by_or_one_line() -> None:
    for odd in ([], "en", [1], {"a": 1}):
        assert chosen(["train.csv"], card={"configs": odd}) == {"train": ["train.csv"]}
    for data_files in (3, [{"split": "train", "path": 3}], [["a", 1]], [{"path": [1]}]):
        configs = [{"config_name": "x", "data_files": data_files}]
        assert "its card's data_files name" in refused(["train.csv"], card={"configs": configs})
