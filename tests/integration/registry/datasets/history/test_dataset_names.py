"""What names a dataset version, and how a tag moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.datasets.history.names import Version, move_tag, of_dataset, version_named, versions
from registry.errors import AliasMovedError, UserError
from registry.models.adapters import move_alias
from tests.support.made_versions import Versions, rows_of, sft

FIRST = rows_of([sft("a", "1")])
SECOND = rows_of([sft("a", "1"), sft("b", "2")])


@pytest.fixture
def made(tmp_path: Path) -> Versions:
    return Versions(tmp_path)


def move(made: Versions, tag: str, version: str, expect: str | None = None) -> None:
    move_tag(made.store, made.catalog, tag, version, expect=expect, reason="")


def named(made: Versions, text: str) -> Version:
    return version_named(made.catalog, text)


def test_a_version_is_found_by_every_name_it_has(made: Versions) -> None:
    first, second = made.put(FIRST), made.put(SECOND)
    other = made.put(rows_of([sft("x", "y")]), name="other")
    move(made, "v1", first)
    found = {
        text: named(made, text).id
        for text in ("chat", "v1", "chat@v1", "chat@", first, first[:20].upper(), f"chat@{first}")
    }
    assert found == {
        "chat": second,
        "v1": first,
        "chat@v1": first,
        "chat@": second,
        first: first,
        first[:20].upper(): first,
        f"chat@{first}": first,
    }
    assert named(made, "other").id == other
    assert named(made, "v1").tags == ("v1",)
    assert [one.id for one in of_dataset(made.catalog, "chat")] == [first, second]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chta", "did you mean 'chat'"),
        ("nothing", "gapmend dataset ls"),
        ("", "is called ''"),
        ("other@v1", "a version of dataset 'chat', not of 'other'"),
        ("nobody@v1", "no dataset is called 'nobody'; expected one of chat, other"),
        ("chat@v9", "is called 'v9'. List them: gapmend dataset ls"),
    ],
)
def test_what_names_nothing_is_one_line(made: Versions, text: str, said: str) -> None:
    first = made.put(FIRST)
    made.put(rows_of([sft("x", "y")]), name="other")
    move(made, "v1", first)
    with pytest.raises(UserError, match="(?i)" + said):
        named(made, text)


def test_an_id_that_fits_two_versions_is_refused(made: Versions) -> None:
    ids = [made.put(rows_of([sft("a", str(n))]), name=f"d{n}", commit=False) for n in range(17)]
    made.catalog.commit([made.store.get(at.parent.name, at.name) for at in made.store.folders()])
    twice = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    with pytest.raises(UserError, match="fits several versions"):
        named(made, twice)


def test_the_name_of_a_dataset_goes_before_the_beginning_of_an_id(made: Versions) -> None:
    first = made.put(FIRST)
    other = made.put(SECOND, name=first[:6])
    assert named(made, first[:6]).id == other


def test_a_tag_moves_from_where_it_is_expected_and_its_history_stays(made: Versions) -> None:
    first, second = made.put(FIRST), made.put(SECOND)
    move(made, "best", first)
    with pytest.raises(AliasMovedError):
        move(made, "best", second)  # expects that it points at nothing
    assert named(made, "best").id == first
    move(made, "best", second, expect=first)
    assert named(made, "best").id == second
    history = made.catalog.query("SELECT target FROM aliases WHERE name = 'best' ORDER BY seq").rows
    assert history == [(first,), (second,)]


@pytest.mark.parametrize("tag", ["chat", "none", "beef", "Best", "-x", "", "a b", "champion"])
def test_a_tag_is_a_name_of_its_own(made: Versions, tag: str) -> None:
    first = made.put(FIRST)
    with pytest.raises(UserError, match="can't be"):
        move(made, tag, first)


def test_tags_and_aliases_of_adapters_are_one_space_of_names(made: Versions) -> None:
    first = made.put(FIRST)
    adapter = made.store.put("adapter", None, identity={"a": 1})
    made.catalog.commit([adapter])
    move_alias(made.store, made.catalog, "mine", adapter.id, expect=None, reason="")
    with pytest.raises(UserError, match="alias of an adapter"):
        move(made, "mine", first, expect=adapter.id)
    with pytest.raises(UserError, match="alias of adapter"):
        named(made, "mine")
    move(made, "v1", first)
    with pytest.raises(UserError, match="tag of a dataset version"):
        move_alias(made.store, made.catalog, "v1", adapter.id, expect=first, reason="")


def test_a_dataset_that_came_after_the_tag_of_its_name_is_told_apart(made: Versions) -> None:
    first = made.put(FIRST)
    move(made, "fresh", first)
    second = made.put(SECOND, name="fresh")
    with pytest.raises(UserError, match="a dataset and a tag") as refused:
        named(made, "fresh")
    assert first[:12] in str(refused.value)
    assert second[:12] in str(refused.value)
    assert named(made, "chat@fresh").id == first


def test_two_datasets_of_the_same_rows_have_one_version_and_both_names(made: Versions) -> None:
    first = made.put(FIRST)
    meta = {
        "stage": "ingest",
        "inputs": {"name": "twin"},
        "outputs": [{"role": "version", "id": first}],
    }
    run = made.store.put("run", None, identity={"stage": "ingest", "key": "k"}, meta=meta)
    made.catalog.commit([run])
    assert [(one.name, one.id) for one in versions(made.catalog)] == [
        ("chat", first),
        ("twin", first),
    ]
    assert named(made, "twin").id == first
