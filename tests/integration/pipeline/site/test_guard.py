"""What is refused before any view sees it, and what a browser may do with an answer."""

from __future__ import annotations

import re

import pytest

from pipeline.site.guard import MOST_BYTES, Access
from tests.integration.pipeline.site.conftest import HERE, PORT, Ask, Client
from tests.support.shown_store import Shown

MOVE = "/alias/candidate"


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/static/style.css", "/sql?q=x", "/sql.csv?q=select 1"]
)
def test_every_answer_says_what_may_be_done_with_it(page: Client, path: str) -> None:
    headers = page.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "server" not in headers


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "", f"[::2]:{PORT}"]
)
def test_a_name_that_was_turned_to_us_is_not_answered(page: Client, host: str) -> None:
    answer = page.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "candidate" not in answer.text


def test_another_page_embeds_nothing_of_ours(page: Client) -> None:
    def asked(site: str, mode: str) -> int:
        return page.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": mode}).status_code

    assert asked("same-origin", "cors") == 200
    assert asked("cross-site", "navigate") == 200  # a link to it is followed
    assert asked("cross-site", "no-cors") == 403
    assert asked("same-site", "cors") == 403  # another port of this machine


def sent(page: Client, **changed: str) -> int:
    """Send a form as our page would, but for what is changed; returns the status."""
    headers = {"origin": changed.pop("origin", HERE)}
    form = {"csrf": page.csrf, "target": "0" * 64, "reason": "why", "expect": "none", **changed}
    return page.post(MOVE, data=form, headers=headers).status_code


def test_what_changes_something_comes_from_our_own_page(page: Client) -> None:
    assert sent(page) == 404  # it reaches the view: no such adapter
    assert sent(page, origin="http://evil.example") == 403
    assert sent(page, origin="null") == 403
    assert sent(page, origin=f"http://127.0.0.1:{PORT + 1}") == 403
    assert page.post(MOVE, data={"csrf": page.csrf}).status_code == 403  # none at all
    assert sent(page, csrf="") == 403
    assert sent(page, csrf="guessed") == 403
    assert page.put(MOVE, headers={"origin": HERE}).status_code == 405
    assert page.get(f"{MOVE}?target={'0' * 64}&csrf={page.csrf}").status_code == 200  # shows it


def test_a_form_is_small(page: Client) -> None:
    assert sent(page, reason="x" * MOST_BYTES) == 413
    headers = {"origin": HERE, "content-type": "application/x-www-form-urlencoded"}
    assert page.post(MOVE, content=iter([b"a=b"]), headers=headers).status_code == 413


def test_beyond_this_machine_a_token_opens_the_door_once_and_a_cookie_keeps_it(
    made: Shown, ask: Ask
) -> None:
    access = Access("0.0.0.0", PORT, "s3cret")  # noqa: S104 - what is asked for
    there = ask(made.root, access)
    for path in ("/", "/?token=wrong", "/static/style.css", "/?token="):
        refused = there.get(path)
        assert refused.status_code == 401
        assert "s3cret" not in refused.text
    opened = there.get("/runs?token=s3cret")
    assert opened.status_code == 303
    assert opened.headers["location"] == "/"
    cookie = opened.headers["set-cookie"]
    assert re.fullmatch(rf"gapmend-{PORT}=s3cret; HttpOnly; Path=/; SameSite=strict", cookie)
    assert there.get("/").status_code == 200  # the client keeps cookies
    assert "s3cret" not in there.get("/").text
    there.cookies.clear()
    assert there.post(f"{MOVE}?token=s3cret", headers={"origin": HERE}).status_code == 401


def test_a_redirect_never_leads_elsewhere(made: Shown, ask: Ask) -> None:
    there = ask(made.root, Access("10.0.0.5", PORT, "s3cret"))
    answer = there.get(f"http://10.0.0.5:{PORT}//evil.example/?token=s3cret")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "path",
    ["/static/..%2f..%2fapp.py", "/static/../app.py", "/static/%2e%2e/guard.py", "/static/app.py",
     "/running/..%2f..%2f/loss.svg", "/running/train-..%2f..%2fobjects/loss.svg",
     "/thing/..%2f..%2fetc", "/data/%2fetc%2fpasswd", "//etc/passwd"],
)  # fmt: skip
def test_no_path_leads_out_of_the_workspace(page: Client, path: str) -> None:
    answer = page.get(f"{HERE}{path}")
    assert answer.status_code == 404
    assert "import" not in answer.text
