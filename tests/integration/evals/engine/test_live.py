"""Live answers: together what they are alone, each with its adapter, and one's fault its own."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch

from evals.engine.live import job as job_module
from evals.engine.live.ask import Ask, Finish, Piece
from evals.engine.live.text import AnswerText
from evals.engine.live.worker import Live
from evals.engine.packed import PackedLM
from registry.chat.tokens import TextTokens
from registry.errors import ModelError, UserError
from registry.models.base import nano_folder
from registry.models.load import BaseSpec, load_model
from tests.support import tiny_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from registry.models.load import LoadedModel

MANY = 32
# What nano goes on with, and what it answers with a word or two.
PROMPTS = [
    f"<|user|>What is {n} plus 1?<|end|><|assistant|>" if n % 2 else f"On day {n} the red"
    for n in range(MANY)
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run beside each other: threads that wait for each other would take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def live(nano: LoadedModel) -> Iterator[Live]:
    with running(nano) as made:
        yield made


@contextmanager
def running(loaded: LoadedModel) -> Iterator[Live]:
    made = Live(loaded)
    try:
        yield made
    finally:
        made.close()


def asked(loaded: LoadedModel, text: str, **more: Any) -> Ask:
    return Ask(tuple(TextTokens(loaded.tokenizer).whole(text)), **{"limit": 16, **more})


def scored(loaded: LoadedModel, texts: Sequence[str], limit: int = 16, **more: Any) -> list[str]:
    """What the scoring engine generates."""
    from lm_eval.api.instance import Instance

    wanted = {"until": ["<|end|>"], "max_gen_toks": limit, "do_sample": False, **more}
    requests = [Instance("generate_until", {}, (t, dict(wanted)), n) for n, t in enumerate(texts)]
    return PackedLM(loaded).generate_until(requests)


def texts_of(live: Live, asks: Sequence[Ask]) -> list[str]:
    return [stream.wait().text for stream in [live.submit(ask) for ask in asks]]


def test_32_together_are_those_alone_and_those_scored_and_three_times_as_fast(
    nano: LoadedModel, live: Live
) -> None:
    asks = [asked(nano, text) for text in PROMPTS]
    began = time.process_time()
    alone = [live.submit(ask).wait() for ask in asks]
    middle = time.process_time()
    together = [stream.wait() for stream in [live.submit(ask) for ask in asks]]
    end = time.process_time()
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.text for one in alone] == scored(nano, PROMPTS)
    assert {one.reason for one in alone} == {"stop", "length"}
    assert middle - began > 3 * (end - middle)


def test_some_join_while_others_are_written_and_the_pieces_are_the_answer(
    nano: LoadedModel, live: Live
) -> None:
    wanted = scored(nano, PROMPTS[:6])
    streams = []
    for text in PROMPTS[:6]:
        streams.append(live.submit(asked(nano, text)))
        next(iter(streams[0]), None)
    pieces = [[piece.text for piece in stream] for stream in streams]
    assert [stream.wait().text for stream in streams] == wanted
    assert all(w.endswith("".join(p)) for w, p in zip(wanted, pieces, strict=True))


def test_adapters_scales_and_the_base_at_once(nano: LoadedModel, tmp_path: Path) -> None:
    base = nano_folder()
    lora = tiny_models.save_adapter(tmp_path / "lora", base, seed=1)
    dora = tiny_models.save_adapter(tmp_path / "dora", base, seed=2, use_dora=True)
    models = [(None, 1.0), (lora, 1.0), (lora, 0.4), (dora, 1.0)]
    wanted = {}
    for adapter, scale in models:
        nano.use(adapter, scale)
        wanted[adapter, scale] = scored(nano, PROMPTS[:3])
    nano.use(None)
    assert len({tuple(texts) for texts in wanted.values()}) == len(models)
    with running(nano) as live:
        streams = {
            (model, n): live.submit(asked(nano, text, adapter=model[0], scale=model[1]))
            for n, text in enumerate(PROMPTS[:3])
            for model in models
        }
        for (model, n), stream in streams.items():
            assert stream.wait().text == wanted[model][n]
    assert not hasattr(nano.model, "peft_config")  # given back as it was


def test_an_adapter_laid_aside_is_the_base_and_comes_back(tmp_path: Path) -> None:
    base = tiny_models.save(tmp_path / "llama", "llama")
    loaded = load_model("tiny", BaseSpec(model="llama"), tmp_path)
    ids = torch.tensor([[20, 30, 40]])

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return loaded.model(ids).logits

    plain = logits()
    changes: list[dict[str, Any]] = [{}, {"modules_to_save": ["lm_head"]}]
    for number, change in enumerate(changes):
        folder = tiny_models.save_adapter(tmp_path / str(number), base, **change)
        loaded.use(folder)
        tuned = logits()
        assert not torch.equal(tuned, plain)
        loaded.lay_aside()
        assert torch.equal(logits(), plain)
        with loaded.base_alone():
            assert torch.equal(logits(), plain)
        loaded.use(folder)
        assert torch.equal(logits(), tuned)
        assert not any(weight.requires_grad for weight in loaded.model.parameters())
    loaded.use(None)
    assert torch.equal(logits(), plain)


def test_a_seed_draws_the_same_whatever_else_is_asked(nano: LoadedModel, live: Live) -> None:
    hot = {"temperature": 1.0, "top_p": 0.95}
    asks = [asked(nano, PROMPTS[0], limit=8, seed=seed, **hot) for seed in range(8)]
    alone = [live.submit(ask).wait().text for ask in asks]
    others = [asked(nano, text, temperature=2.0) for text in PROMPTS[1:9]]
    mixed = [live.submit(ask) for pair in zip(others, asks, strict=True) for ask in pair]
    assert [stream.wait().text for stream in mixed[1::2]] == alone
    assert len(set(alone)) > 1


def test_draws_are_as_likely_as_the_model_says(nano: LoadedModel, live: Live) -> None:
    """First tokens of 300 draws: within five standard errors of temperature's and top_p's rule."""
    ask = asked(nano, "Tell me something that nobody taught you.", limit=1)
    with torch.no_grad():
        logits = nano.model(torch.tensor([ask.prompt])).logits[0, -1].double()
    for temperature, top_p in ((0.7, 1.0), (1.0, 0.6)):
        likely = (logits / temperature).softmax(-1)
        ordered, ids = likely.sort(descending=True)
        kept = ids[: int((ordered.cumsum(0) - ordered < top_p).sum())].tolist()
        share = likely[kept] / likely[kept].sum()
        drawn: Counter[int] = Counter()
        streams = [
            live.submit(
                Ask(ask.prompt, None, 1.0, 1, temperature, top_p, seed, plain=False, logprobs=0)
            )
            for seed in range(300)
        ]
        for stream in streams:
            told = [token.id for piece in stream for token in piece.tokens]
            drawn[told[0] if told else min(nano.chat.stops)] += 1
        assert drawn.keys() <= set(kept)
        for token, p in zip(kept[:5], share[:5].tolist(), strict=True):
            assert abs(drawn[token] - 300 * p) <= 5 * (300 * p * (1 - p)) ** 0.5 + 1


def test_log_probabilities_are_those_of_a_plain_forward(nano: LoadedModel, live: Live) -> None:
    stream = live.submit(asked(nano, PROMPTS[2], logprobs=3, temperature=1.0, seed=1))
    tokens = [token for piece in stream for token in piece.tokens]
    prompt = list(stream.ask.prompt)
    with torch.no_grad():
        ids = torch.tensor([prompt + [token.id for token in tokens]])
        plain = nano.model(ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    assert tokens
    for place, token in enumerate(tokens):
        best = plain[place].topk(3)
        assert token.logprob == pytest.approx(float(plain[place, token.id]), abs=1e-3)
        assert [id_ for id_, _ in token.top] == best.indices.tolist()
        assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-3)


def test_a_stop_text_ends_an_answer_and_none_of_it_is_shown(nano: LoadedModel, live: Live) -> None:
    text = PROMPTS[2]
    whole = live.submit(asked(nano, text)).wait().text
    for start in range(1, len(whole) - 3, 4):
        stop = whole[start : start + 3]
        stream = live.submit(asked(nano, text, stops=("never said", stop)))
        shown = "".join(piece.text for piece in stream)
        assert shown == whole.partition(stop)[0] == stream.wait().text
        assert stream.wait().reason == "stop"
    assert scored(nano, [text], until=["<|end|>", stop]) == [shown]


def test_a_special_token_as_stop_text_ends_an_answer(nano: LoadedModel, live: Live) -> None:
    finish = live.submit(asked(nano, PROMPTS[1], stops=("<|end|>",), plain=False)).wait()
    assert finish.reason == "stop"
    assert "<|end|>" not in finish.text


def test_never_half_a_character(nano: LoadedModel) -> None:
    tokenizer = nano.tokenizer
    said = "Grüße, 中文 und 🎉👩‍👩‍👧 — naïve e\u0301 done"
    text = AnswerText(tokenizer)
    pieces = [text.add(token) for token in tokenizer.encode(said, add_special_tokens=False)]
    assert sum(not piece for piece in pieces) > 10  # the parts of characters
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + text.end() == said == text.whole


def test_any_tokens_are_decoded_as_at_once(nano: LoadedModel) -> None:
    draw = random.Random(0)
    for length in (1, 2, 3, 5, 8, 40):
        for _ in range(20):
            tokens = [draw.randrange(6, len(nano.tokenizer)) for _ in range(length)]
            text = AnswerText(nano.tokenizer)
            shown = "".join(text.add(token) for token in tokens) + text.end()
            assert shown == nano.tokenizer.decode(tokens)


def test_a_long_answer_is_read_by_few_tokens_at_a_time(nano: LoadedModel) -> None:
    """Half a megabyte in far less than a second for each part: nothing is decoded again."""
    text = AnswerText(nano.tokenizer, ["\n\nstop"])
    token = nano.tokenizer.encode(" the", add_special_tokens=False)[0]
    for _ in range(20_000):
        text.add(token)
    began = time.process_time()
    for _ in range(100):
        text.add(token)
    assert time.process_time() - began < 0.2
    assert len(text._near) < 3


def test_room_grows_and_is_given_back(nano: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = scored(nano, PROMPTS[:8])
    monkeypatch.setattr(job_module, "AHEAD", 2)
    asks = [asked(nano, text) for text in PROMPTS[:8]]
    with running(nano) as live:
        assert texts_of(live, asks) == wanted
        live._kv = 1  # one at a time then
        assert texts_of(live, asks) == wanted
        live._kv = 3 * live._forward.kv_bytes * max(len(ask.prompt) for ask in asks)
        assert texts_of(live, asks) == wanted


def test_without_memory_for_all_some_wait_and_one_alone_is_told(
    nano: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = scored(nano, PROMPTS[:8])
    with running(nano) as live:
        step, most = live._forward.step, 3

        def short(ids: Any, *others: Any) -> torch.Tensor:
            if len(ids) > most:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")
            return step(ids, *others)

        monkeypatch.setattr(live._forward, "step", short)
        assert texts_of(live, [asked(nano, text) for text in PROMPTS[:8]]) == wanted
        most = 0
        with pytest.raises(UserError, match="not enough memory for one more token behind"):
            live.submit(asked(nano, PROMPTS[1])).wait()
        most = 3
        assert texts_of(live, [asked(nano, PROMPTS[1])]) == wanted[1:2]


def test_one_whose_numbers_break_fails_alone(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "llama", "llama")
    loaded = load_model("tiny", BaseSpec(model="llama"), tmp_path)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[300] = torch.nan
        loaded.model.lm_head.weight[300] = 0
    good = [Ask((20, 30, 40 + n), limit=30) for n in range(3)]
    bad = Ask((20, 300, 40), limit=30)
    with running(loaded) as live:
        wanted = texts_of(live, good)
        streams = [live.submit(ask) for ask in (good[0], bad, *good[1:], bad)]
        for stream in (streams[1], streams[4]):
            with pytest.raises(ModelError, match=r"no finite number .*embed_tokens"):
                stream.wait()
        assert [streams[n].wait().text for n in (0, 2, 3)] == wanted
        assert texts_of(live, good) == wanted  # nothing of it is left in the slots


def test_an_adapter_that_is_none_fails_alone(nano: LoadedModel, live: Live, tmp_path: Path) -> None:
    streams = [live.submit(asked(nano, PROMPTS[0], adapter=a)) for a in (None, tmp_path, None)]
    with pytest.raises(ModelError, match="no adapter in"):
        streams[1].wait()
    assert [streams[n].wait().text for n in (0, 2)] == scored(nano, PROMPTS[:1]) * 2


@pytest.mark.parametrize("kind", ["mamba", "qwen3_next"])
def test_a_hybrid_answers_one_after_the_other(tmp_path: Path, kind: str) -> None:
    tiny_models.save(tmp_path / kind, kind)
    loaded = load_model("tiny", BaseSpec(model=kind), tmp_path)
    loaded.model.generation_config.repetition_penalty = 1.5  # a checkpoint's own is not ours
    prompts = [(20, 30, 40, 50 + n) for n in range(3)]
    with running(loaded) as live:
        assert not live.together
        streams = [live.submit(Ask(prompt, limit=9)) for prompt in prompts]
        for prompt, stream in zip(prompts, streams, strict=True):
            tokens = list(prompt)
            for _ in range(9):
                with torch.no_grad():
                    tokens.append(int(loaded.model(torch.tensor([tokens])).logits[0, -1].argmax()))
                if tokens[-1] in loaded.chat.stops:
                    break
            said = [token.id for piece in stream for token in piece.tokens]
            assert said == [token for token in tokens[4:] if token not in loaded.chat.stops]
        hot = [live.submit(Ask(prompts[0], limit=9, temperature=1.0, seed=s)) for s in (1, 1, 2)]
        first, same, other = (stream.wait().text for stream in hot)
        assert first == same != other
        long = live.submit(Ask(prompts[0], limit=400, temperature=2.0))
        long.cancel()
        assert long.wait().reason in {"cancelled", "stop"}


def test_cancelled_and_closed(nano: LoadedModel) -> None:
    live = Live(nano)
    told: list[Piece | Finish] = []
    slow = {"limit": 1500}
    first = live.submit(asked(nano, PROMPTS[0], **slow))
    next(iter(first))
    first.cancel()
    finish = first.wait()
    assert finish.reason == "cancelled"
    assert 0 < finish.tokens < 1500
    second = live.submit(asked(nano, PROMPTS[0], **slow), told.append)
    while not told:
        time.sleep(0.01)
    live.close()
    assert second.finish is told[-1]
    assert second.finish is not None
    assert second.finish.reason == "cancelled"
    assert "".join(e.text for e in told if isinstance(e, Piece)) == second.finish.text
    with pytest.raises(UserError, match="closed"):
        live.submit(asked(nano, "Anyone?"))


def test_who_is_told_and_raises_is_given_up_and_the_others_go_on(
    nano: LoadedModel, live: Live
) -> None:
    def raises(_event: Piece | Finish) -> None:
        raise RuntimeError("the loop is closed")

    gone = live.submit(asked(nano, PROMPTS[1]), raises)
    assert texts_of(live, [asked(nano, PROMPTS[1])]) == scored(nano, PROMPTS[1:2])
    assert gone.cancelled


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; expected 0 to 2"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"limit": 0}, "limit is 0"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"prompt": ()}, "prompt is no token"),
        ({"prompt": (20,) * 2048}, "the prompt has 2048 tokens; expected fewer than 2048"),
        ({"prompt": (99_999,)}, "99999"),
    ],
)
def test_what_cannot_be_asked_is_refused(live: Live, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        live.submit(Ask(**{"prompt": (20,), **change}))


def test_the_limit_ends_at_the_context(nano: LoadedModel, live: Live) -> None:
    prompt = (20,) * (nano.context - 3)
    finish = live.submit(Ask(prompt, temperature=2.0, seed=0)).wait()
    assert finish.tokens <= 3
    assert finish.prompt_tokens == nano.context - 3
