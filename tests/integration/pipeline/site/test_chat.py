"""Talking to a workspace's models on the page: as a script of ours asks, and as a browser alone."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from markupsafe import escape

from evals.engine.live.ask import Ask as LiveAsk
from evals.engine.live.ask import Finish, Piece, Stream
from pipeline.site.app import app
from pipeline.site.guard import Access
from pipeline.site.site import Site
from pipeline.site.talks.chosen import Chosen
from pipeline.site.talks.open_talk import OpenTalk
from pipeline.site.talks.talks import MOST
from pipeline.talk.reply import Reply, Said
from pipeline.talk.talk import Talk
from registry.errors import UserError
from tests.integration.pipeline.site.conftest import HERE, PORT, Client
from tests.support.shown_store import EVIL
from tests.support.talked import make_talked

SUM = "What is 2 plus 1?"
LONG = {"text": "Who?", "tokens": "1900"}  # nano goes on to the limit: a minute


class Page:
    """The page of a workspace, as a script of ours and a browser alone use it."""

    def __init__(self, root: Path) -> None:
        self.site = Site.of(root, Access.to("127.0.0.1", PORT))
        self.app = app(self.site)
        self.client = Client(self.app, base_url=HERE, follow_redirects=False)

    def send(self, path: str, **form: str) -> Any:
        """Send a form as a browser does."""
        filled = {"csrf": self.site.access.csrf, **form}
        return self.client.post(path, data=filled, headers={"origin": HERE})

    def ask(self, text: str = SUM, **form: str) -> list[dict[str, Any]]:
        """Ask as the script does; return what it is told."""
        told = {"model": "nano", "tokens": "12", "plain": "1", "text": text, **form}
        answer = self.send("/chat", **told)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]

    def open(self, events: list[dict[str, Any]]) -> OpenTalk:
        """Return the talk that was begun or gone on with."""
        return self.site.talks.find(key_of(events))


def key_of(events: list[dict[str, Any]]) -> str:
    return str(next(event["talk"] for event in events if "talk" in event))


def written(events: list[dict[str, Any]], side: int) -> str:
    return "".join(
        event["text"] for event in events if event.get("side") == side and "text" in event
    )


def said(one: OpenTalk, turn: int = -1, side: int = 0) -> Said:
    done = one.turns[turn].answers[side].done
    assert isinstance(done, Said)
    return done


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    made = Page(make_talked(tmp_path_factory.mktemp("talked") / "ws"))
    yield made
    made.site.talks.close()


def test_everybody_and_every_prompt_is_offered(page: Page) -> None:
    text = page.client.get("/chat").text
    assert 'value="nano" selected>nano: base</option>' in text  # there is no champion
    assert re.search(r'value="mine">mine: adapter [0-9a-f]{12} on nano</option>', text)
    assert 'value="sums/few_shot_2">sums: few_shot_2</option>' in text
    assert "sums/cot" not in text  # it takes more than one text
    assert page.client.get("/chat?model=mine").text.count('value="mine" selected') == 1
    nobody = page.client.get("/chat?model=nobody")
    assert "no model is called &#39;nobody&#39;" in nobody.text


def test_two_answer_as_they_write_and_go_on(page: Page) -> None:
    page.site.talks.sweep(idle_s=0)
    events = page.ask(model="mine", against="nano")
    assert events[0] == {"say": "Loading mine and nano …"}
    one = page.open(events)
    for side, name in enumerate(("mine", "nano")):
        done = said(one, side=side)
        assert done.model == name
        assert written(events, side) == done.written
        [last] = [
            event["html"] for event in events if event.get("side") == side and "html" in event
        ]
        assert html.escape(done.text) in last
        assert f"{done.tokens} token" in last
    assert said(one).written != said(one, side=1).written
    more = page.ask("And now?", model="mine", against="nano", talk=one.key)
    assert "say" not in more[0]  # all is loaded
    assert page.open(more) is one
    assert said(one).prompt_tokens > said(one, 0).prompt_tokens
    shown = page.client.get(f"/chat?talk={one.key}").text
    assert shown.count('class="turn"') == 2
    assert 'value="mine" selected' in shown
    assert not one.is_busy


def test_without_scripts_the_page_comes_back_with_whole_answers(page: Page) -> None:
    answer = page.send("/chat", model="mine", against="nano", text=SUM, tokens="12")
    assert answer.status_code == 303
    at, _, anchor = answer.headers["location"].partition("#")
    shown = page.client.get(at).text
    assert anchor == "turn-0"
    assert f'id="{anchor}"' in shown
    assert shown.count("tokens in") + shown.count("1 token in") == 2
    again = page.send(
        "/chat", model="mine", against="nano", text="a\r\nb", talk=at.partition("=")[2]
    )
    assert again.headers["location"].endswith("#turn-1")
    assert ">a\nb</div>" in page.client.get(at).text


def test_two_pages_do_not_mix(page: Page) -> None:
    first, second = page.ask(), page.ask("How many are they?")
    one, other = page.open(first), page.open(second)
    assert one is not other
    page.ask("How many are they?", talk=one.key)
    assert len(other.turns) == 1
    assert said(one, 1).prompt_tokens > said(other).prompt_tokens
    third = page.open(page.ask(talk=other.key, model="mine"))  # another model: another talk
    assert third is not other
    assert said(third).prompt_tokens == said(one, 0).prompt_tokens


def test_two_pages_that_ask_at_once_are_answered_each_its_own(page: Page) -> None:
    texts = (SUM, "On day 3 the red", "Who came to the house?")
    alone = [said(page.open(page.ask(text))).written for text in texts]
    assert len(set(alone)) == 3
    with ThreadPoolExecutor(3) as pool:
        told = [*pool.map(page.ask, texts)]
    assert [written(events, 0) for events in told] == alone


def test_a_prompt_is_applied_and_left_out_again(page: Page) -> None:
    one = page.open(page.ask())
    page.ask(talk=one.key, prompt="sums/few_shot_2")
    page.ask(talk=one.key)
    bare, shots, again = (said(one, turn).prompt_tokens for turn in range(3))
    assert bare < again < shots


def test_a_side_that_fails_hides_nothing_of_the_other(page: Page) -> None:
    one = page.open(page.ask(model="mine", against="nano"))
    assert one.talk is not None
    one.talk.sides[0].asked.append({"role": "user", "content": "word " * 3000})
    events = page.ask("Who?", model="mine", against="nano", talk=one.key)
    assert one.turns[1].answers[0].exchange is None
    assert said(one, side=1).tokens > 0
    text = page.client.get(f"/chat?talk={one.key}").text
    assert re.search(r"No answer: the prompt has \d+ tokens; expected fewer than 2048", text)
    assert written(events, 1) == said(one, side=1).written
    refused = page.send("/chat/keep", talk=one.key, keep="row 1 0", row="new")
    assert refused.status_code == 404
    assert "this answer hasn&#39;t come" in refused.text


def test_what_cannot_be_asked_is_a_line_and_the_form_keeps_what_was_typed(page: Page) -> None:
    for form, status, line in (
        ({"model": "nobody"}, 404, "no model is called 'nobody'"),
        ({"model": "champion"}, 404, "no adapter is champion yet"),
        ({"tokens": "many"}, 400, "'many' is no number of tokens"),
        ({"temperature": "3"}, 400, "'3' is no temperature"),
        ({"text": " "}, 400, "nothing is asked"),
        ({"talk": "gone"}, 404, "this talk is over"),
        ({"prompt": "sums/few_shot_9"}, 400, "no prompt of sums is called 'few_shot_9'"),
        ({"text": "word " * 3000}, 400, "the prompt has"),
    ):
        sent = {"model": "nano", "text": "<b>Hello", "tokens": "12", **form}
        answer = page.send("/chat", **sent)
        assert answer.status_code == status, form
        assert line in html.unescape(answer.text)
        assert html.escape(sent["text"][:50]) in answer.text
        plain = page.send("/chat", plain="1", **sent)
        if plain.status_code == 200:  # it had begun
            assert line in json.loads(plain.text.splitlines()[-1])["error"]
        else:
            assert plain.status_code == status
            assert plain.text.startswith(line)
            assert "\n" not in plain.text


def test_only_our_own_forms_are_taken(page: Page) -> None:
    before = set(page.site.talks._open)
    form = {"model": "nano", "text": SUM, "plain": "1"}
    csrf = {"csrf": page.site.access.csrf}
    for path in ("/chat", "/chat/keep", "/chat/new", "/chat/stop"):
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{PORT + 1}"):
            there = page.client.post(path, data=form | csrf, headers={"origin": origin})
            assert there.status_code == 403, path
        assert page.client.post(path, data=form | csrf).status_code == 403
        for guessed in ("", "guessed"):
            refused = page.client.post(
                path, data=form | {"csrf": guessed}, headers={"origin": HERE}
            )
            assert refused.status_code == 403
            assert refused.text == "This form is of another start of gapmend ui: open it again."
    assert set(page.site.talks._open) == before


def test_an_answer_is_kept_as_a_row_and_the_right_one_as_an_item(page: Page) -> None:
    one = page.open(page.ask("Who wins the match of Monday?"))
    told = page.send(
        "/chat/keep", talk=one.key, keep="row 0 0", row="sums", item="sums", plain="1"
    ).json()
    version = re.fullmatch(
        r"kept in data/sums.jsonl:21, train of sums ([0-9a-f]{12})", told["said"]
    )
    assert version is not None
    assert told["said"] in told["html"]
    [address] = re.findall(r'href="(/data/[0-9a-f]{64})"', told["html"])
    assert version[1] in address
    assert "Who wins the match of Monday?" in page.client.get(f"{address}?text=Monday").text
    assert version[1] in page.client.get("/data").text  # it is the newest
    form = {"keep": "item 0 0", "item": "sums", "answer 0 0": "the\r\nred"}
    two = page.open(page.ask("Which colour has the sky at night in May?"))
    kept = page.send("/chat/keep", **form | {"talk": two.key})
    assert kept.status_code == 303
    text = page.client.get(kept.headers["location"].partition("#")[0]).text
    assert "kept in data/dev.jsonl:11, dev of sums" in text
    last = json.loads((page.site.ws.root / "data" / "dev.jsonl").read_text().splitlines()[-1])
    assert last["answer"] == "the\nred"
    assert last["kept_from"].startswith("chat with nano, 20")
    assert last["kept_from"].endswith(", answer corrected")


def test_an_earlier_answer_is_kept_as_it_was(page: Page) -> None:
    one = page.open(page.ask())
    page.ask("And now?", talk=one.key)
    kept = page.send("/chat/keep", talk=one.key, keep="row 0 0", row="apart", plain="1").json()
    assert kept["said"].startswith(
        "kept in data/kept/apart.jsonl:1; to use it, add to gapmend.yaml"
    )
    line = json.loads((page.site.ws.root / "data/kept/apart.jsonl").read_text())
    assert [turn["content"] for turn in line["messages"]] == [SUM, said(one, 0).text]
    for button, status in (("row 9 0", 404), ("row 0", 400), ("file 0 0", 400), ("row 0 x", 400)):
        form = {"talk": one.key, "keep": button, "row": "apart", "plain": "1"}
        assert page.send("/chat/keep", **form).status_code == status, button
    lost = page.send("/chat/keep", talk=one.key, keep="row 0 0", row="", plain="1")
    assert lost.text == "nothing says where the row goes; expected the name of a dataset"


def test_what_the_spec_gets_meanwhile_is_there(tmp_path: Path, page: Page) -> None:
    root = Path(shutil.copytree(page.site.ws.root, tmp_path / "ws"))
    own = Page(root)
    assert 'value="news"' not in own.client.get("/chat").text
    spec = root / "gapmend.yaml"
    spec.write_text(
        spec.read_text().replace("datasets:\n", "datasets:\n  news: {path: data/n.jsonl}\n")
    )
    assert 'value="news"' in own.client.get("/chat").text
    spec.write_text("bases: [")
    broken = own.client.get("/chat")
    assert broken.status_code == 400
    assert "gapmend.yaml" in broken.text


def test_a_model_that_cannot_be_loaded_is_a_line(tmp_path: Path, page: Page) -> None:
    root = Path(shutil.copytree(page.site.ws.root, tmp_path / "ws"))
    spec = root / "gapmend.yaml"
    spec.write_text(spec.read_text().replace("bases: {", "bases: {gone: {model: ./nowhere}, "))
    own = Page(root)
    assert 'value="gone">gone: base' in own.client.get("/chat").text
    for form in ({"model": "gone"}, {"model": "nano", "against": "gone"}):
        [*_, last] = own.ask(**form)
        assert "nowhere" in last["error"]
        answer = own.send("/chat", text=SUM, **form)
        assert answer.status_code == 400
        assert "nowhere" in answer.text
    assert not own.site.talks._open
    own.site.talks.close()


class Fed(Talk):
    """Answers what it is given: no small model writes 2 MB, or markup on purpose."""

    pieces: tuple[str, ...] = ()

    def ask(
        self, text: str, told: Callable[[int, Piece | Finish], None] | None = None
    ) -> list[Reply]:
        assert told is not None
        stream = Stream(LiveAsk((1,)), partial(told, 0))
        for piece in self.pieces:
            stream.tell(Piece(piece))
        stream.tell(Finish("stop", "".join(self.pieces), 1, 5, 0.1, 0.2))
        return [Reply(self.sides[0], text, {"role": "user", "content": text}, stream)]


def fed(page: Page, *pieces: str) -> tuple[OpenTalk, list[dict[str, Any]]]:
    one = page.open(page.ask())
    assert one.talk is not None
    one.talk = Fed(one.talk._ws, one.talk._ui, one.talk._room, one.talk.sides)
    one.talk.pieces = pieces
    return one, page.ask(EVIL, talk=one.key)


def test_what_acts_is_shown_however_it_is_split(page: Page) -> None:
    one, events = fed(page, EVIL, "\x1b", "[2J", "\u202e", '<img src="x" onerror="alert(3)">')
    shown = page.client.get(f"/chat?talk={one.key}").text
    pieces = written(events, 0)
    assert "\\u001b[2J\\u202e" in pieces
    sent = "".join(event.get("html", "") + event.get("turn", "") for event in events)
    for text in (shown, sent):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert 'href="javascript' not in text
        assert escape(EVIL.replace("\x1b", r"\u001b")) in text
        assert "{{ 7 * 7 }}" in text


def test_two_megabytes_are_an_answer_as_well(page: Page) -> None:
    part = "<b>" + "x" * 20_000 + "\n"
    one, events = fed(page, *[part] * 100)
    assert len(written(events, 0)) == 100 * len(part)
    assert len(events) < 50  # what has come meanwhile is one event
    assert page.client.get(f"/chat?talk={one.key}").text.count("&lt;b&gt;xxx") == 100


def driven(
    page: Page,
    form: dict[str, str],
    on_text: Callable[[asyncio.Event], None] = lambda _: None,
    gone_when: Callable[[], bool] = lambda: False,
) -> list[bytes]:
    """Send a form; go away when that is so, or as `on_text` says when a text comes."""
    body = urlencode({"csrf": page.site.access.csrf, "model": "nano", **form}).encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "POST", "scheme": "http", "path": "/chat", "raw_path": b"/chat", "root_path": "",
        "query_string": b"", "server": ("127.0.0.1", PORT), "client": ("127.0.0.1", 1),
        "headers": [
            (b"host", f"127.0.0.1:{PORT}".encode()), (b"origin", HERE.encode()),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-length", str(len(body)).encode()),
        ],
    }  # fmt: skip
    sent: list[bytes] = []

    async def left(gone: asyncio.Event) -> None:
        while not (gone.is_set() or gone_when()):  # noqa: ASYNC110 - of another thread's doing
            await asyncio.sleep(0.01)

    async def go() -> None:
        gone = asyncio.Event()
        coming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if coming:
                return coming.pop()
            await left(gone)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))
            if b'"text"' in sent[-1]:
                on_text(gone)

        await asyncio.wait_for(page.app(scope, receive, send), 120)

    asyncio.run(go())
    return sent


def newest(page: Page) -> OpenTalk:
    return list(page.site.talks._open.values())[-1]


def ended(one: OpenTalk) -> OpenTalk:
    """Wait until nothing is on its way."""
    until = time.monotonic() + 60
    while one.is_busy:
        assert time.monotonic() < until
        time.sleep(0.01)
    return one


def test_who_goes_away_takes_the_answer_along(page: Page) -> None:
    sent = driven(page, LONG | {"plain": "1"}, asyncio.Event.set)
    one = ended(newest(page))
    assert b'"html"' not in b"".join(sent)
    assert said(one).reason == "cancelled"
    assert said(one).tokens < 1900
    assert page.open(page.ask("And now?", talk=one.key)) is one  # it can be gone on with


def test_without_scripts_too(page: Page) -> None:
    before = page.open(page.ask())
    driven(page, LONG, gone_when=lambda: newest(page) is not before and bool(newest(page).turns))
    assert said(ended(newest(page))).reason == "cancelled"


def test_an_answer_is_stopped_as_far_as_it_came(page: Page) -> None:
    sent = driven(page, LONG | {"plain": "1"}, lambda _: newest(page).stop())
    one = newest(page)
    last = json.loads(b"".join(sent).splitlines()[-1])
    assert ", stopped; " in last["html"]
    assert said(one).reason == "cancelled"
    assert page.send("/chat/stop", talk=one.key).status_code == 303
    assert page.send("/chat/stop", talk="gone", plain="1").status_code == 404


def test_a_second_question_waits_for_nobody(page: Page) -> None:
    found: list[object] = []

    def ask_too(gone: asyncio.Event) -> None:
        if not found:
            with pytest.raises(UserError, match="this talk is being answered") as raised:
                page.site.talks.begun(newest(page).key, Chosen(model="nano", text="And?"))
            found.append(raised)
        gone.set()

    driven(page, LONG | {"plain": "1"}, ask_too)
    assert found
    ended(newest(page))


def test_who_leaves_before_a_model_is_loaded_is_answered_nothing(page: Page) -> None:
    talk = page.open(page.ask()).talk
    assert talk is not None
    one = OpenTalk("key", (), Chosen())
    early = one.question("?")
    one.leave(early)
    assert not one.is_busy
    with pytest.raises(UserError, match="has gone"):
        one.ask(early, lambda: talk, lambda *_: None)
    late = one.question("?")

    def loaded() -> Talk:
        one.leave(late)
        return talk

    with pytest.raises(UserError, match="has gone"):
        one.ask(late, loaded, lambda *_: None)
    assert not one.is_busy
    assert not one.turns


def test_a_new_talk_has_what_was_chosen(page: Page) -> None:
    one = page.open(page.ask())
    answer = page.send("/chat/new", talk=one.key, model="mine", tokens="7", text="so far")
    assert answer.status_code == 303
    text = page.client.get(answer.headers["location"]).text
    assert 'value="mine" selected' in text
    assert 'name="tokens" value="7"' in text
    assert "so far</textarea>" in text
    over = page.client.get(f"/chat?talk={one.key}")
    assert over.status_code == 404
    assert "this talk is over" in over.text


def test_the_oldest_gives_way_and_models_are_let_go(page: Page) -> None:
    talks = page.site.talks
    opened = [
        page.open(page.ask(tokens="1", model="mine", against="nano")) for _ in range(MOST + 1)
    ]
    assert len(talks._open) == MOST
    with pytest.raises(UserError, match="this talk is over"):
        talks.find(opened[0].key)
    talks.sweep()
    assert len(talks._open) == MOST
    side = opened[-1].talk.sides[0]  # type: ignore[union-attr]
    talks.sweep(idle_s=0)
    assert not talks._open
    assert not talks._room._voices  # type: ignore[union-attr]
    assert not side.voice.live._thread.is_alive()
    assert said(page.open(page.ask())).tokens > 0  # and loaded again
