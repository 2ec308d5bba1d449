"""A report as a page and as Markdown: whole, and what the data say is text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pages.account import Account
from pipeline.pages.charts import pictures, png, svg
from pipeline.pages.charts.draw import SERIES, Picture
from pipeline.pages.charts.graph import lineage_picture
from pipeline.pages.charts.training import thinned
from pipeline.pages.html import TEMPLATES, html
from pipeline.pages.items import ItemChanged, NearRow
from pipeline.pages.markdown import markdown
from pipeline.pages.parts import parts
from registry.lineage.graph import Edge, Lineage, Node
from tests.support.accounts import account, finding

EVIL = "<script>alert(1)</script> [x](javascript:alert(1)) \x1b[31m & | `"


def changed(said: str = "red") -> list[ItemChanged]:
    near = NearRow("colours", "mend", "data/c.jsonl:3", said, 0.5)
    return [
        ItemChanged("colours", "lost", said, said, said, said, near),
        ItemChanged("moods", "gained", said, said, said, said, None),
    ]


def page(told: Account, said: str = "red") -> str:
    return html(told, parts(told, pictures(told), changed(said)))


def test_the_page_has_every_part_and_asks_nothing_of_anyone() -> None:
    made = page(account())
    titles = re.findall(r'<h2 id="[a-z]+-title">([^<]*)', made)
    assert titles == [
        *("The story", "Gaps", "Forgetting", "Items that changed", "Rows", "Training"),
        *("Mending", "Promotion and merge", "Lineage", "To make it again"),
    ]
    assert not re.search(r"(src|href)=.?(https?:|//)|<script|url\(|@import| style=", made)
    assert made.count("<svg ") == len([p for found in pictures(account()).values() for p in found])


def test_the_policy_lets_the_page_s_own_style_in_and_nothing_else() -> None:
    made = page(account())
    style = re.search(r"<style>(.*?)</style>", made, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made)
    assert policy
    assert policy[1].replace("&#39;", "'") == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_what_the_data_say_is_text_on_the_page() -> None:
    told = account(base=EVIL, gap=(finding(EVIL, 0.4, "tune"),))
    made = page(told, EVIL)
    assert "<script>alert" not in made
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in made
    assert 'href="javascript' not in made


def test_what_the_data_say_is_text_in_markdown() -> None:
    told = account(base=EVIL)
    made = markdown(told, parts(told, pictures(told), changed(EVIL)))
    assert "<script>" not in made
    assert "\\[x\\](javascript:alert(1))" in made
    tables = [line for line in made.splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert cells  # a bar in a text divides no cell
    assert all(len(re.findall(r"(?<!\\)\|", line)) >= 3 for line in tables)


def test_without_an_adapter_there_are_the_gaps_alone() -> None:
    told = account(facts=None, trainings=(), promotion=None, tested=None, merge=None)
    made = html(told, parts(told, pictures(told), ()))
    assert "Gaps of tiny" in made
    assert "Forgetting" not in made


def test_every_colour_of_a_chart_has_its_shade_in_the_style() -> None:
    style = (TEMPLATES / "style.css").read_text("utf-8")
    for found in pictures(account()).values():
        for one in found:
            drawn = svg(one)
            used = {c for c in re.findall(r'"(#[0-9a-f]{3,6})"', drawn) if c != "#000"}
            assert all(f'"{colour}"]' in style for colour in used), (one.name, used)
    assert all(f'fill="{colour}"]' in style for colour in SERIES)


def test_a_chart_is_sound_xml_and_a_png() -> None:
    told = account(gap=(finding(EVIL, 0.4, "tune"),))
    (one,) = pictures(told)["gap"]
    ET.fromstring(svg(one))  # noqa: S314 - our own
    assert png(one).startswith(b"\x89PNG")
    assert isinstance(one, Picture)
    assert "0.400" in one.says


@given(st.lists(st.floats(0, 10), max_size=1000), st.integers(1, 300))
def test_thinned_curves_keep_their_mean_and_their_last_step(values: list[float], most: int) -> None:
    points = tuple(enumerate(values))
    found = thinned(points, most)
    assert len(found) <= most
    assert not points or found[-1][0] == points[-1][0]
    if points and len(points) % len(found) == 0:
        mean = sum(value for _, value in found) / len(found)
        assert mean == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_a_graph_leaves_out_what_another_way_says() -> None:
    nodes = tuple(Node(key, "adapter", "") for key in "abc")
    found = Lineage(
        "a", "up", nodes, (Edge("a", "b", "x"), Edge("b", "c", "x"), Edge("a", "c", "x"))
    )
    drawn = lineage_picture(found)
    assert drawn
    assert svg(drawn).count("<line ") == 2
    assert lineage_picture(replace(found, edges=())) is None


def test_a_graph_of_a_run_has_the_run() -> None:
    nodes = (Node("r", "run", "merge"), Node("a", "adapter", ""))
    drawn = lineage_picture(Lineage("r", "up", nodes, (Edge("r", "a", "adapter"),)))
    assert drawn
    assert "run r" in svg(drawn)
