"""Texts that a base draws by itself: its own distribution, a seed, and drawn once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch

from evals.engine.journal import Journal, keys_of
from evals.scoring import sampled as module
from evals.scoring.sampled import BATCH, sampled
from registry.models.load import BaseSpec, load_model
from tests.support import tiny_models

if TYPE_CHECKING:
    from pathlib import Path

    from registry.models.load import LoadedModel

ASKED = [{"role": "user", "content": "Tell me something that nobody taught you."}]


def test_the_same_seed_draws_the_same_and_more_of_them_begin_with_it(
    nano: LoadedModel, tmp_path: Path
) -> None:
    few = sampled(nano, ASKED, 3, tmp_path / "a.jsonl", max_new_tokens=6)
    state = torch.get_rng_state()
    many = sampled(nano, ASKED, BATCH + 2, tmp_path / "b.jsonl", max_new_tokens=6)
    assert len(many) == BATCH + 2
    assert many[:3] == few
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's draws are touched
    other = sampled(nano, ASKED, BATCH, tmp_path / "a.jsonl", max_new_tokens=6, seed=1)
    assert other != many[:BATCH]


def test_what_was_drawn_before_a_kill_is_not_drawn_again(
    nano: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sampled(nano, ASKED, 2 * BATCH, tmp_path / "whole.jsonl", max_new_tokens=4)
    draw = module._draw
    drawn: list[Any] = []

    def killed(*given: Any) -> Any:
        if drawn:
            raise KeyboardInterrupt
        drawn.append(given)
        return draw(*given)

    kept = tmp_path / "kept.jsonl"
    monkeypatch.setattr(module, "_draw", killed)
    with pytest.raises(KeyboardInterrupt):
        sampled(nano, ASKED, 2 * BATCH, kept, max_new_tokens=4)
    drawn.clear()
    assert sampled(nano, ASKED, 2 * BATCH, kept, max_new_tokens=4) == whole
    assert len(drawn) == 1


def test_texts_come_as_often_as_the_base_finds_them_likely(
    nano: LoadedModel, tmp_path: Path
) -> None:
    """First tokens by the plain softmax: 320 draws are within 5 standard errors of each."""
    count = 320
    found = sampled(nano, ASKED, count, tmp_path / "a.jsonl", max_new_tokens=1)
    context = nano.chat.context(ASKED)
    ids = nano.tokenizer(context, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        likely = nano.model(ids).logits[0, -1].float().softmax(-1)
    tokens: Counter[str] = Counter(one.text for one in found)
    special = nano.chat.specials
    assert sum(one.ended for one in found) == pytest.approx(
        count * float(likely[sorted(nano.chat.stops)].sum()), abs=5 * (count / 4) ** 0.5
    )
    for number in likely.topk(5).indices.tolist():
        if number in special:
            continue
        p = float(likely[number])
        text = nano.chat.tokenizer.decode([number])
        assert tokens[text] == pytest.approx(count * p, abs=5 * (count * p * (1 - p)) ** 0.5 + 1)


@pytest.mark.parametrize("template", [True, False])
def test_a_draw_is_kept_for_what_the_base_read(tmp_path: Path, *, template: bool) -> None:
    """Bases without a template were once asked without the <s> that they are asked with now."""
    tiny_models.save(tmp_path / "base", "llama", bos=True, template=template)
    tiny = load_model("tiny", BaseSpec(model="base", dtype="fp32"), tmp_path)
    kept = tmp_path / "a.jsonl"
    setting = {"seed": 0, "from": 0, "tokens": 4, **module._PLAIN}
    (key,) = keys_of("sampled", [(tiny.chat.context(ASKED), setting)])
    journal, before = Journal(kept), tiny.chat.tokenizer("card")["input_ids"][1:]
    journal.add(key, [before] * BATCH)
    journal.flush()
    (found,) = sampled(tiny, ASKED, 1, kept, max_new_tokens=4)
    assert (found.text == "card") is template


@pytest.fixture(autouse=True)
def _no_adapter(nano: LoadedModel) -> None:
    nano.use(None)
