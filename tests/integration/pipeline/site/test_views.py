"""What the pages show is what the records say."""

from __future__ import annotations

import csv
import html
import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from pipeline.pages.account import account
from pipeline.site import contents
from pipeline.site.views import row as row_view
from pipeline.site.views import selection
from pipeline.site.views.sql import cookbook
from pipeline.workspace.store import WorkspaceStore
from registry.catalog.resident import ResidentCatalog
from tests.integration.pipeline.site.conftest import HERE, Ask, Client
from tests.support.shown_store import SUBJECTS, Shown

if TYPE_CHECKING:
    from pathlib import Path


ITEMS = 30
LOST = {i for i in range(ITEMS) if i % 3 == 0 and i % 5 != 1}  # colours: i%3==0, then i%5==1
GAINED = {i for i in range(ITEMS) if i % 3 and i % 5 == 1}


def rows(text: str) -> list[list[str]]:
    """Return the lines of a page's tables, as texts."""
    found = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", one, re.DOTALL) for one in found]
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in one] for one in cells]


def first_cells(page: Client, path: str) -> list[str]:
    answer = page.get(path)
    assert answer.status_code == 200, answer.text
    return [one[0] for one in rows(answer.text)[1:]]


def test_the_overview_says_what_there_is(page: Client, made: Shown) -> None:
    text = page.get("/").text
    assert "2 dataset versions" in text
    assert "No adapter is champion yet." in text
    for one in (*made.adapters, *made.versions[1:]):
        assert one[:12] in text
    assert "failed" in text


def test_runs_are_listed_by_stage_and_outcome(page: Client, made: Shown) -> None:
    assert first_cells(page, "/runs?status=failed") == [made.failed[:12]]
    trained = first_cells(page, "/runs?stage=train&status=done")
    assert len(trained) == 2
    assert page.get("/runs?stage=other").status_code == 400


def test_items_are_lost_and_gained_as_they_were_made(page: Client, made: Shown) -> None:
    query = f"/items?of={made.adapters[-1]}&subject=colours"
    assert set(map(int, first_cells(page, f"{query}&way=lost"))) == LOST
    assert set(map(int, first_cells(page, f"{query}&way=gained"))) == GAINED
    changed = set(map(int, first_cells(page, f"{query}&way=changed")))
    assert changed == LOST | GAINED
    right = set(map(int, first_cells(page, f"{query}&way=right")))
    assert right == {i for i in range(ITEMS) if i % 5 == 1}
    assert len(first_cells(page, f"{query}&way=wrong")) == ITEMS - len(right)


def test_items_are_found_by_what_they_say(page: Client, made: Shown) -> None:
    query = f"/items?of={made.adapters[-1]}&subject=moods&text="
    assert sorted(map(int, first_cells(page, f"{query}QUESTION 2"))) == [2, *range(20, 30)]
    assert len(first_cells(page, f"{query}{quote('<script>')}")) == ITEMS
    assert first_cells(page, f"{query}{quote('no?such')}") == []
    assert page.get(f"{query}{'x' * 201}").status_code == 400


def test_items_come_a_page_at_a_time(page: Client, made: Shown) -> None:
    query = f"/items?of={made.adapters[-1]}"
    first, second = (page.get(f"{query}&page={number}").text for number in (0, 1))
    assert "1 to 50 of 60 items" in first
    assert "51 to 60 of 60 items" in second
    assert len({row[0] + row[1] for text in (first, second) for row in rows(text)[1:]}) == 60
    assert "no items" in page.get(f"{query}&page=9").text


def test_an_item_has_both_answers_and_the_rows_nearest_to_it(page: Client, made: Shown) -> None:
    after = made.evals[made.adapters[-1], "colours"]
    before = made.evals["", "colours"]
    text = page.get(f"/item?before={before}&after={after}&row=3&near=1").text
    assert "Answer before" in text
    assert "answer 3" in text
    assert "1 before, 0 now" in text
    near = [row for row in rows(text) if row and re.fullmatch(r"\d\.\d\d", row[0])]
    assert near
    assert near[0][2].startswith("data/talk.jsonl:")
    assert page.get(f"/item?after={after}&row=999").status_code == 404


def test_adapters_side_by_side(page: Client, made: Shown) -> None:
    first, second = made.adapters
    text = page.get(f"/compare?id={first}&id={second}").text
    found = {row[0]: row for row in rows(text)}
    assert found["train.rank"][1:] == ["2", "3"]
    assert "train.learning_rate" not in found  # it is the same
    # colours: right where i % 5 is 0, then 1: six are lost and six gained of thirty
    moved = next(row for row in rows(text) if row[:2] == ["colours", "dev"] and len(row) == 9)
    assert moved[3:6] == ["30", "6", "6"]
    assert moved[6].startswith("+0.000 (")
    assert moved[7] == "1"
    assert page.get(f"/compare/loss.svg?id={first}&id={second}").status_code == 200
    assert page.get(f"/compare?id={first}").status_code == 400
    assert page.get(f"/compare?id={first}&id=zz").status_code == 404


def test_a_version_shows_its_rows_groups_and_rejects(page: Client, made: Shown) -> None:
    at = f"/data/{made.versions[1]}"
    assert first_cells(page, at) == [str(i) for i in range(1, 40)]
    assert first_cells(page, f"{at}?split=test") == ["1", "11", "21", "31"]
    assert first_cells(page, f"{at}?text=question 1 ") == ["1"]
    assert "data/talk.jsonl:1001" in first_cells(page, f"{at}?part=rejects")
    groups = page.get(f"{at}?part=near-duplicates").text
    assert "groups" in groups
    assert page.get("/data/talk").status_code == 200  # by name
    assert page.get("/data/other").status_code == 404


def test_of_a_text_that_many_rows_have_the_first_are_listed(
    page: Client, made: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "MOST_FOUND", 5)
    text = page.get(f"/data/{made.versions[1]}?text=QUESTION&split=train").text
    assert "the first 5 of 32 that have this text" in text
    assert [row[0] for row in rows(text)[1:]] == ["2", "3", "4", "5", "6"]


def test_a_selection_comes_a_page_at_a_time(
    page: Client, made: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_LINES", 3)
    text = page.get(f"/selection/{made.selections[0]}?page=1").text
    assert [row[1] for row in rows(text) if len(row) == 7 and row[0].isdecimal()] == ["5", "6", "7"]
    assert "4 to 6 of 8 rows" in text


def test_a_row_that_much_was_made_of_lists_the_newest(
    page: Client, made: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_view, "_MOST", 1)
    text = page.get("/row/5").text
    assert "Selections, the newest 1 of 2" in text
    assert made.selections[1][:12] in text
    assert made.selections[0][:12] not in text


def test_two_versions_are_compared_row_by_row(page: Client, made: Shown) -> None:
    a, b = made.versions
    text = page.get(f"/data/diff?a={a}&b={b}&show=added").text
    assert "19 rows" in text  # the same in both: 1 to 19
    assert "added: 20" in text
    assert "removed: 1" in text
    assert len(rows(text)) == 21


def test_a_selection_says_what_each_row_is_for(page: Client, made: Shown) -> None:
    text = page.get(f"/selection/{made.selections[0]}").text
    lines = [row for row in rows(text) if len(row) == 7 and row[0].isdecimal()]
    assert [row[1] for row in lines] == [str(i) for i in range(2, 10)]
    assert lines[1][3] == "fills in a loss"
    assert "the base's own answer, which is trained" in lines[1][5]
    assert lines[0][6] == "data/talk.jsonl:3"


def test_from_a_push_down_to_a_row_and_its_file_and_line(page: Client, made: Shown) -> None:
    """A person clicks: the push, its lineage, the selection, a row."""
    push = page.get(f"/thing/{made.push}").text
    up = re.search(r'href="(/lineage/[0-9a-f]+)"', push)
    assert up
    lineage = page.get(up[1]).text
    assert "data/talk.jsonl" in lineage
    selection = made.selections[-1]
    assert f'href="/thing/{selection}"' in lineage
    own = page.get(f"/thing/{selection}").text
    assert f'href="/selection/{selection}"' in own
    assert 'href="/row/4"' in page.get(f"/selection/{selection}").text
    row = page.get("/row/4").text
    assert "data/talk.jsonl:5" in row
    assert made.push[:12] in row  # and back: what it went into


def test_a_thing_is_found_by_the_beginning_of_its_id_an_alias_or_a_commit(
    page: Client, made: Shown
) -> None:
    for name, wanted in (("candidate", made.adapters[-1]), ("c" * 10, made.push)):
        assert wanted in page.get(f"/thing/{name}").text


def test_questions_in_sql(page: Client) -> None:
    asked = quote("select stage, count(*) as n from runs group by stage order by stage")
    text = page.get(f"/sql?q={asked}").text
    assert ["ingest", "2"] in rows(text)
    assert "n over stage" in text
    assert page.get(f"/sql.svg?q={asked}&x=stage&y=n").headers["content-type"] == "image/svg+xml"
    answer = page.get(f"/sql.csv?q={asked}")
    assert next(csv.reader(io.StringIO(answer.text))) == ["stage", "n"]
    assert "attachment" in answer.headers["content-disposition"]


def test_sql_only_reads_and_only_the_store(page: Client) -> None:
    refused = (
        *("drop view runs", "select * from read_text('/etc/hostname')", "select 1; select 2"),
        *("copy (select 1) to 'out.csv'", "select getenv('HOME')", "nonsense", "x" * 7000),
    )
    for asked in refused:
        text = page.get(f"/sql?q={quote(asked)}").text
        assert 'role="alert"' in text, asked
        assert "As CSV" not in text
        assert page.get(f"/sql.csv?q={quote(asked)}").status_code == 400


def test_the_cookbook_s_questions_are_those_of_the_reference(
    page: Client, project_root: Path
) -> None:
    text = (project_root / "docs" / "reference" / "sql.md").read_text("utf-8")
    assert len(cookbook()) == text.count("```sql") > 15
    title, query = cookbook()[0]
    assert (title, query.split()[0]) == ("What does the base lack?", "select")
    assert rows(page.get(f"/sql?q={quote(query)}").text)[1][0] in SUBJECTS


def test_a_name_moves_where_the_page_has_seen_it_and_nowhere_else(own: Shown, ask: Ask) -> None:
    page, (first, second) = ask(own.root), own.adapters
    seen = re.search(r'name="expect" value="([0-9a-f]+)"', page.get("/alias/candidate").text)
    assert seen
    form = {"csrf": page.csrf, "expect": seen[1], "reason": "better"}

    def sent(**more: str) -> tuple[int, str]:
        answer = page.post("/alias/candidate", data={**form, **more}, headers={"origin": HERE})
        return answer.status_code, answer.text

    # Two pages were open: the first one moves it, and the second is told so.
    assert sent(target=first[:12])[0] == 303
    status, text = sent(target=second)
    assert status == 409
    assert "it was moved meanwhile" in text
    catalog = WorkspaceStore.open(own.root).catalog
    assert catalog.alias("candidate") == first
    assert "better" in page.get("/alias/candidate?moved=1").text
    assert sent(target="nobody", expect=first)[0] == 404


def test_champion_moves_to_what_promote_let_through(own: Shown, ask: Ask) -> None:
    page, (first, second) = ask(own.root), own.adapters
    form = {"csrf": page.csrf, "expect": "none", "reason": "it is"}
    answer = page.post("/alias/champion", data={**form, "target": second}, headers={"origin": HERE})
    assert answer.status_code == 409
    assert "promote has let through" in answer.text
    answer = page.post("/alias/champion", data={**form, "target": first}, headers={"origin": HERE})
    assert (answer.status_code, answer.headers["location"]) == (303, "/alias/champion?moved=1")
    assert f"The champion is {first[:8]}." in page.get("/").text


def test_an_account_from_memory_is_the_one_from_the_file(made: Shown) -> None:
    plain = WorkspaceStore.open(made.root)
    resident = replace(plain, catalog=ResidentCatalog(plain.state))
    assert account(resident) == account(plain)
