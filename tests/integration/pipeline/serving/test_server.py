"""The server as OpenAI's own client sees it: answers, streams, errors, many at once."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.support.called import forked
from tests.support.served import Served, add_adapter, make_workspace, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANY = 32
LONG = "On day 3 the red"
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    make_workspace(folder)
    add_adapter(folder, seed=1, alias="champion")
    add_adapter(folder, seed=2)
    return folder


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Served]:
    with serving(root) as made:
        yield made


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return served.client()


def question(number: int) -> Any:  # the client's types are closed
    """One message."""
    return [{"role": "user", "content": f"What is {number} plus 1?"}]


def said(client: openai.OpenAI, model: str, number: int = 0, **more: Any) -> str:
    told = {"temperature": 0, "max_tokens": 24, **more}
    made = client.chat.completions.create(model=model, messages=question(number), **told)
    return str(made.choices[0].message.content)


def first(client: openai.OpenAI, model: str) -> float:
    """The log-probability of the first token: hardly that of another model."""
    made = client.completions.create(
        model=model, prompt=LONG, temperature=0, max_tokens=1, logprobs=0
    ).choices[0]
    assert made.logprobs is not None
    assert made.logprobs.token_logprobs is not None
    return float(made.logprobs.token_logprobs[0])


def names(client: openai.OpenAI) -> list[str]:
    return [model.id for model in client.models.list().data]


def test_every_adapter_is_a_model(client: openai.OpenAI) -> None:
    base, alias, newest, oldest = names(client)
    assert (base, alias) == ("nano", "champion")
    assert client.models.retrieve("champion").parent == oldest  # type: ignore[attr-defined]
    firsts = {name: first(client, name) for name in (base, alias, newest, oldest, oldest[:8])}
    assert firsts[alias] == firsts[oldest] == firsts[oldest[:8]]
    assert len({firsts[base], firsts[alias], firsts[newest]}) == 3


def test_an_answer_is_what_scoring_generates(client: openai.OpenAI, root: Path) -> None:
    from lm_eval.api.instance import Instance

    from evals.engine.packed import PackedLM
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.load import load_model

    ws = OpenWorkspace.open(root)
    engine = PackedLM(load_model("nano", ws.spec.bases["nano"], root))
    asked = engine.chat.context(question(3))
    wanted = {"until": ["<|end|>"], "max_gen_toks": 24, "do_sample": False}
    for name in ("nano", "champion"):
        target = ws.catalog.alias(name)
        engine.use(ws.store.get("adapter", target).path if target else None)
        request = Instance("generate_until", {}, (asked, dict(wanted)), 0)
        assert [said(client, name, 3)] == engine.generate_until([request])


def test_usage_and_the_reason_of_the_end(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="champion", messages=question(0), temperature=0, max_completion_tokens=1
    )
    assert made.choices[0].finish_reason == "length"
    assert made.usage is not None
    assert made.usage.completion_tokens == 1
    assert made.usage.total_tokens == made.usage.prompt_tokens + 1
    ended = client.chat.completions.create(model="nano", messages=question(0), temperature=0)
    assert ended.choices[0].finish_reason == "stop"


def test_a_stream_is_the_answer_in_parts(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="champion",
        messages=question(1),
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert len(chunks) >= 3
    text = "".join(part.choices[0].delta.content or "" for part in chunks)
    assert text == said(client, "champion", 1)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 1


def test_text_goes_on_streamed_or_not_from_text_or_tokens(client: openai.OpenAI) -> None:
    told: dict[str, Any] = {"model": "nano", "temperature": 0, "max_tokens": 12}
    whole = client.completions.create(prompt=LONG, **told).choices[0].text
    assert whole
    parts = client.completions.create(prompt=LONG, stream=True, **told)
    assert "".join(part.choices[0].text for part in parts if part.choices) == whole
    echoed = client.completions.create(prompt=[LONG, "On day 4"], echo=True, n=2, **told)
    assert [one.index for one in echoed.choices] == [0, 1, 2, 3]
    assert [one.text for one in echoed.choices[:2]] == [LONG + whole] * 2
    assert echoed.usage is not None
    assert echoed.usage.completion_tokens <= 48
    tokens = client.completions.create(prompt=[5, 6, 7], **told)
    assert tokens.usage is not None
    assert tokens.usage.prompt_tokens == 3


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(client: openai.OpenAI) -> None:
    told: dict[str, Any] = {"model": "nano", "prompt": LONG, "temperature": 0, "max_tokens": 12}
    whole = client.completions.create(**told).choices[0].text
    stop = whole[3:5]
    for stops in (stop, ["never there", stop]):
        made = client.completions.create(stop=stops, **told).choices[0]
        assert made.text == whole[: whole.index(stop)]
        assert made.finish_reason == "stop"
    parts = client.completions.create(stop=[stop], stream=True, **told)
    assert "".join(p.choices[0].text for p in parts if p.choices) == whole[: whole.index(stop)]


def test_log_probabilities(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="champion",
        messages=question(2),
        temperature=0,
        max_tokens=5,
        logprobs=True,
        top_logprobs=3,
    ).choices[0]
    assert made.logprobs is not None
    tokens = made.logprobs.content
    assert tokens is not None
    assert "".join(token.token for token in tokens) == made.message.content
    for token in tokens:
        assert token.top_logprobs[0].logprob == token.logprob  # greedy
        assert [one.logprob for one in token.top_logprobs] == sorted(
            (one.logprob for one in token.top_logprobs), reverse=True
        )
    text = client.completions.create(
        model="nano", prompt=LONG, temperature=0, max_tokens=4, logprobs=1
    ).choices[0]
    assert text.logprobs is not None
    assert text.logprobs.tokens is not None
    assert "".join(text.logprobs.tokens) == text.text
    assert text.logprobs.text_offset == [
        0,
        *(len("".join(text.logprobs.tokens[: n + 1])) for n in range(3)),
    ]


def test_a_prompt_s_tokens_are_told_with_what_they_cost(client: openai.OpenAI, root: Path) -> None:
    from lm_eval.api.instance import Instance

    from evals.engine.packed import PackedLM
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.load import load_model

    told: dict[str, Any] = {"model": "champion", "temperature": 0, "max_tokens": 2, "logprobs": 2}
    made = client.completions.create(prompt=LONG, echo=True, **told).choices[0]
    plain = client.completions.create(prompt=LONG, **told).choices[0]
    assert (made.logprobs is not None, plain.logprobs is not None) == (True, True)
    tokens, costs = made.logprobs.tokens, made.logprobs.token_logprobs
    assert "".join(tokens) == made.text == LONG + plain.text
    assert made.logprobs.text_offset == [len("".join(tokens[:at])) for at in range(len(tokens))]
    assert (costs[0], made.logprobs.top_logprobs[0]) == (None, None)
    assert costs[-2:] == plain.logprobs.token_logprobs
    assert all(len(likely) in (2, 3) for likely in made.logprobs.top_logprobs[1:])
    ws = OpenWorkspace.open(root)
    engine = PackedLM(load_model("nano", ws.spec.bases["nano"], root))
    engine.use(ws.store.get("adapter", str(ws.catalog.alias("champion"))).path)
    request: Any = Instance("loglikelihood", {}, (LONG[:8], LONG[8:]), 0)
    ((scored, _),) = engine.loglikelihood([request])
    behind = [at for at, begins in enumerate(made.logprobs.text_offset) if begins >= 8][:-2]
    assert sum(costs[at] for at in behind) == pytest.approx(scored, abs=1e-4)
    parts = client.completions.create(prompt=LONG, echo=True, stream=True, **told)
    streamed = [part.choices[0] for part in parts if part.choices]
    assert "".join(part.text for part in streamed) == made.text
    assert [one for part in streamed if part.logprobs for one in part.logprobs.tokens] == tokens


def test_the_same_seed_draws_the_same(client: openai.OpenAI) -> None:
    told: dict[str, Any] = {"temperature": 1.5, "max_tokens": 12}
    one, same, other = (said(client, "champion", seed=seed, **told) for seed in (7, 7, 8))
    assert one == same != other
    several = client.chat.completions.create(
        model="champion", messages=question(0), seed=7, n=2, **told
    ).choices
    assert [choice.message.content for choice in several] == [one, other]
    # Of a share that small only the likeliest is left.
    assert said(client, "champion", top_p=1e-6, temperature=2) == said(client, "champion")


def test_tools_reach_the_template_and_their_results_too(client: openai.OpenAI) -> None:
    def prompt_tokens(**more: Any) -> int:
        made = client.chat.completions.create(
            model="nano", messages=turns, temperature=0, max_tokens=1, **more
        )
        assert made.usage is not None
        return made.usage.prompt_tokens

    turns: list[Any] = question(0)
    plain = prompt_tokens()
    assert prompt_tokens(tools=[TOOL]) > plain
    assert prompt_tokens(tools=[TOOL], tool_choice="none") == plain
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    assert prompt_tokens(tools=[TOOL]) > plain


@pytest.mark.parametrize(
    ("more", "error", "said_of_it"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "'nobody' does not exist; there are nano"),
        ({"model": "ffffffff"}, openai.NotFoundError, "does not exist"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "isn't done here"),
        ({"extra_body": {"top_k": 3}}, openai.BadRequestError, "top_k"),
        ({"messages": question(0) * 900}, openai.BadRequestError, "the prompt has"),
    ],
)
def test_what_can_t_be_answered(
    client: openai.OpenAI, more: dict[str, Any], error: type[openai.APIStatusError], said_of_it: str
) -> None:
    told = {"model": "nano", "messages": question(0), **more}
    with pytest.raises(error, match=said_of_it) as caught:
        client.chat.completions.create(**told)
    assert caught.value.body["type"] == "invalid_request_error"  # type: ignore[index]
    assert said(client, "nano")  # the server lives on


def test_a_token_that_the_base_hasn_t_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="999999"):
        client.completions.create(model="nano", prompt=[999_999], max_tokens=1)


@pytest.mark.parametrize(
    ("line", "headers", "body", "status"),
    [
        ("POST /v1/chat/completions", "Content-Type: application/json", b"{", 400),
        ("POST /v1/chat/completions", "Content-Type: text/plain", b"{}", 415),
        ("GET /v1/chat/completions", "", b"", 405),
        ("GET /elsewhere", "", b"", 404),
        ("GET /v1/models", "Host: evil.example", b"", 403),
        ("GET /v1/models", "Origin: https://evil.example", b"", 403),
        ("nonsense", "", b"", 400),
    ],
)
def test_requests_that_no_client_sends(
    served: Served, line: str, headers: str, body: bytes, status: int
) -> None:
    port = int(served.address.rpartition(":")[2])
    host = "" if headers.startswith("Host") else "Host: localhost\r\n"
    more = f"{headers}\r\n" if headers else ""
    head = (
        f"{line} HTTP/1.1\r\n{host}{more}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as asked:
        asked.sendall(head.encode() + body)
        got = b"".join(iter(lambda: asked.recv(65536), b""))
    assert int(got.split(b" ")[1]) == status
    if line != "nonsense":
        assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_many_at_once_are_those_one_after_the_other(client: openai.OpenAI) -> None:
    who = names(client)

    def ask(number: int) -> str:
        return said(client, who[number % len(who)], number)

    begun = time.monotonic()
    alone = [ask(number) for number in range(MANY)]
    sequential = time.monotonic() - begun
    with ThreadPoolExecutor(MANY) as pool:
        begun = time.monotonic()
        together = list(pool.map(ask, range(MANY)))
        parallel = time.monotonic() - begun
    print(f"one after the other {sequential:.2f} s, at once {parallel:.2f} s")
    assert together == alone


def test_who_goes_away_cancels_the_answer(served: Served, client: openai.OpenAI) -> None:
    def running() -> float:
        begun = time.monotonic()
        said(client, "champion", max_tokens=1)
        return time.monotonic() - begun

    usual = max(running() for _ in range(3))
    stream = client.completions.create(
        model="nano", prompt=LONG, temperature=1, seed=1, max_tokens=10_000, n=16, stream=True
    )
    next(iter(stream))
    stream.close()
    # One that asked for no stream, and hangs up.
    with pytest.raises(openai.APITimeoutError):
        served.client(timeout=0.3).completions.create(
            model="nano", prompt=LONG, temperature=2, seed=1, max_tokens=10_000, n=16
        )
    for _ in range(100):
        if running() < 3 * usual:
            return
        time.sleep(0.1)
    pytest.fail("rows are still in use")


def test_an_adapter_that_comes_later_is_found(served: Served, root: Path) -> None:
    client = served.client()
    before = names(client)
    made = add_adapter(root, seed=3, alias="later")
    assert set(names(client)) - set(before) == {"later", made[:12]}
    assert first(client, "later") == first(client, made[:12])


def test_it_ends_in_order_and_counts(root: Path) -> None:
    with serving(root, "champion", "--token", "--log", "--json", GAPMEND_TOKEN="t" * 20) as served:
        with pytest.raises(openai.AuthenticationError):
            served.client().models.list()
        client = served.client(api_key="t" * 20)
        assert names(client) == ["champion"]
        with pytest.raises(openai.NotFoundError):
            said(client, "nano")
        assert said(client, "champion")
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(
                client.completions.create,
                model="champion", prompt=LONG, temperature=2, max_tokens=10_000, n=16,
            )  # fmt: skip
            time.sleep(0.5)
            assert served.stop(signal.SIGINT) == 0
            assert long.exception() is None or isinstance(long.exception(), openai.APIError)
        told = json.loads(served.said())
        assert told["answers"] >= 1
        assert told["tokens"] >= 1
        logged = served.logged()
        assert "GET /v1/models 401" in logged
        assert "t" * 20 not in logged
        assert "Traceback" not in logged


def test_a_port_in_use_is_one_line(served: Served, root: Path) -> None:
    port = served.address.rpartition(":")[2]
    done = forked("serve", "-C", root, "--port", port)
    assert done.code == 2
    assert done.err.startswith(f"gapmend: --port: port {port} of 127.0.0.1 is in use")
    assert len(done.err.splitlines()) == 1


def test_a_name_that_isn_t_there_is_one_line(root: Path) -> None:
    done = forked("serve", "nobody", "-C", root, "--port", "0")
    assert done.code == 2
    assert "nobody" in done.err
    assert len(done.err.splitlines()) == 1
