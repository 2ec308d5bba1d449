"""New tokens: rows of their own in the base, trained with LoRA, kept in the adapter, merged."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.spec.train import Method, TrainSpec
from pipeline.training.examples.encode import TrainingRow
from pipeline.training.examples.pairs import PreferenceRow
from pipeline.training.fit import fit
from pipeline.training.losses.attention import make_layout
from pipeline.training.losses.objective import TrainingExample
from registry.errors import UserError
from registry.intake.adapter_tokens import check_tokens
from registry.merge.one import merge_adapter
from registry.models.adapters import write_scaled
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

NEW = ("<refund>", "<card>", "→")
SPEC = TrainSpec(
    base="tiny",
    rank=4,
    learning_rate=1e-2,
    epochs=4,
    batch_tokens=128,
    min_steps=1,
    checkpoint_steps=2,
    seed=5,
)
KINDS = ("tied", "untied", "spare")
FIRST = 425  # as many tokens as the tokenizer has
DELTA = "token_adapter.trainable_tokens_delta"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bases whose weights have as many rows as their tokenizer has tokens, or some to spare."""
    root = tmp_path_factory.mktemp("bases")
    for kind in KINDS:
        size = 512 if kind == "spare" else FIRST
        tiny_models.save(root / kind, "llama", tie_word_embeddings=kind == "tied", vocab_size=size)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture
def untied(folders: dict[str, Path]) -> Path:
    return folders["untied"]


def loaded_from(folder: Path, **more: Any) -> LoadedModel:
    given = BaseSpec(model=str(folder), dtype="fp32", new_tokens=NEW, **more)
    return load_model("tiny", given, folder)


def rows(count: int = 24) -> list[TrainingRow]:
    rng = random.Random(1)
    words = ["the", "film", "was", "good", "→", "but", "warm", "as", "a", "card", "lazy", "dog"]
    return [
        TrainingRow(
            uid=1000 + uid,
            messages=(
                {"role": "user", "content": " ".join(rng.choices(words, k=rng.randint(3, 18)))},
                {"role": "assistant", "content": rng.choice(NEW[:2])},
            ),
            tools=None,
            capability="routes",
        )
        for uid in range(count)
    ]


def logits(model: Any, tokenizer: Any, **kwargs: Any) -> torch.Tensor:
    text = "a film <refund> was → good <card> but <refund>"
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    if "packed_layout" in kwargs:
        kwargs["packed_layout"] = make_layout([ids.shape[1]])
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **kwargs).logits[0].float()


def test_each_is_one_token_and_begins_at_the_mean_of_its_pieces(folder: Path) -> None:
    plain = load_model("tiny", BaseSpec(model=str(folder), dtype="fp32"), folder)
    grown = loaded_from(folder)
    assert grown.identity.digest != plain.identity.digest
    assert grown.new_rows == [FIRST, FIRST + 1, FIRST + 2]
    for token in NEW:
        ids = grown.tokenizer.encode(f"so{token}it", add_special_tokens=False)
        assert sum(one >= FIRST for one in ids) == 1
        assert grown.tokenizer.decode(ids, skip_special_tokens=True) == f"so{token}it"
    before = plain.model.get_input_embeddings().weight
    after = grown.model.get_input_embeddings().weight
    assert torch.equal(before[:FIRST], after[:FIRST])
    parts = [*plain.tokenizer.encode("<ref"), *plain.tokenizer.encode("und>")]
    assert torch.allclose(after[FIRST], before[parts].mean(0))
    assert len(after) == max(FIRST + 3, len(before))
    head = grown.model.get_output_embeddings()
    assert len(head.weight) == len(after)
    again = loaded_from(folder)
    assert torch.equal(after, again.model.get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "lora") for kind in KINDS),
        ("untied", "dora"),
        ("tied", "pissa"),
        ("spare", "lora+"),
    ],
)
def test_their_rows_are_trained_and_go_with_the_adapter(
    folders: dict[str, Path], tmp_path: Path, kind: str, method: Method
) -> None:
    folder = folders[kind]
    loaded = loaded_from(folder)
    plain = logits(loaded.model, loaded.tokenizer)
    spec = SPEC.by(method)
    made = fit(loaded, rows(), spec, tmp_path / "run")
    assert made.losses[-1].loss < 0.5 * made.losses[0].loss
    assert torch.equal(logits(loaded.model, loaded.tokenizer), plain)

    tensors = load_file(made.adapter_dir / "adapter_model.safetensors")
    deltas = {name: tensor for name, tensor in tensors.items() if DELTA in name}
    tied = loaded.model.config.tie_word_embeddings
    assert len(deltas) == (1 if tied else 2)
    for name, tensor in deltas.items():
        module = loaded.model.get_submodule(
            name.removeprefix("base_model.model.").removesuffix(f".{DELTA}")
        )
        assert tensor.shape == (3, 48)
        assert tensor.dtype == torch.float32
        assert not torch.allclose(tensor, module.weight[FIRST : FIRST + 3], atol=1e-3)

    # With nothing but PEFT and transformers, on the base as others have it.
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(folder)
    base.resize_token_embeddings(max(len(loaded.tokenizer), base.config.vocab_size))
    theirs = PeftModel.from_pretrained(base, made.adapter_dir).eval()
    loaded.use(made.adapter_dir)
    ours = logits(loaded.model, loaded.tokenizer)
    loaded.use(None)
    assert float((ours - plain).abs().max()) > 1e-2
    assert torch.allclose(ours, logits(theirs, loaded.tokenizer), atol=2e-5)


def test_stopped_and_repeated_it_ends_with_the_same_bytes(untied: Path, tmp_path: Path) -> None:
    loaded = loaded_from(untied)
    whole = fit(loaded, rows(), SPEC, tmp_path / "whole")

    class StoppedError(Exception):
        pass

    def stop(step: Any) -> None:
        if step.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(loaded, rows(), SPEC, tmp_path / "cut", on_step=stop)
    again = fit(loaded, rows(), SPEC, tmp_path / "cut")
    assert again.resumed_from
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again.adapter_dir / name).read_bytes() == (whole.adapter_dir / name).read_bytes()


def test_preferences_begin_at_the_base(untied: Path, tmp_path: Path) -> None:
    """The reference has the rows as they began: with no change yet, DPO's loss is log 2."""
    loaded = loaded_from(untied)
    good, bad = ({"role": "assistant", "content": token} for token in NEW[:2])
    pairs: list[TrainingExample] = [
        PreferenceRow(row.uid, (dict(row.messages[0]),), (good,), (bad,), None, "routes")
        for row in rows()
    ]
    made = fit(loaded, pairs, SPEC.model_copy(update={"objective": "dpo"}), tmp_path / "run")
    assert made.losses[0].loss == pytest.approx(math.log(2), abs=1e-5)
    assert made.losses[-1].loss < 0.2


def test_in_half_precision_too(untied: Path, tmp_path: Path) -> None:
    loaded = loaded_from(untied)
    made = fit(loaded, rows(), SPEC.model_copy(update={"dtype": "bf16"}), tmp_path / "run")
    assert made.losses[-1].loss < 0.5 * made.losses[0].loss


def test_on_a_quantised_base(untied: Path, tmp_path: Path) -> None:
    loaded = loaded_from(untied, quantize="nf4")
    made = fit(loaded, rows(), SPEC, tmp_path / "run")
    assert made.losses[-1].loss < 0.5 * made.losses[0].loss
    done = merge_adapter(loaded, made.adapter_dir, tmp_path / "merged")
    assert done.quantised is not None


def test_full_trains_them_and_freeze_is_refused(untied: Path, tmp_path: Path) -> None:
    loaded = loaded_from(untied)
    made = fit(loaded, rows(), SPEC.by("full"), tmp_path / "full")
    assert json.loads((made.adapter_dir / "changed.json").read_text())["new_tokens"] == list(NEW)
    with pytest.raises(UserError, match="freeze trains the last layers alone"):
        fit(loaded, rows(), SPEC.by("freeze"), tmp_path / "freeze")


@pytest.mark.parametrize(
    ("kind", "method"), [("tied", "lora"), ("untied", "dora"), ("spare", "full")]
)
def test_merged_they_are_in_the_model_and_its_tokenizer(
    folders: dict[str, Path], tmp_path: Path, kind: str, method: Method
) -> None:
    folder = folders[kind]
    loaded = loaded_from(folder)
    made = fit(loaded, rows(), SPEC.by(method), tmp_path / "run")
    done = merge_adapter(loaded, made.adapter_dir, tmp_path / "merged")
    assert max(done.parity.merged, done.parity.reloaded) <= done.parity.bound
    loaded.use(made.adapter_dir)
    wanted = logits(loaded.model, loaded.tokenizer)
    loaded.use(None)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(model, tokenizer), wanted, atol=1e-4)
    assert tokenizer.encode("<card>", add_special_tokens=False) == [FIRST + 1]


def test_scaled_the_rows_stay_as_they_were_trained(untied: Path, tmp_path: Path) -> None:
    """A scale is between the base and the adapter, and the base knows nothing of new tokens."""
    loaded = loaded_from(untied)
    made = fit(loaded, rows(), SPEC, tmp_path / "run")
    loaded.use(made.adapter_dir, scale=0.5)
    half = logits(loaded.model, loaded.tokenizer)
    write_scaled(made.adapter_dir, 0.5, tmp_path / "half")
    loaded.use(tmp_path / "half")
    written = logits(loaded.model, loaded.tokenizer)
    loaded.use(None)
    assert torch.allclose(half, written, atol=1e-5)


def test_a_token_that_is_there_already_is_one_line(untied: Path) -> None:
    given = BaseSpec(model=str(untied), new_tokens=("<|user|>",))
    with pytest.raises(UserError, match=r"'<\|user\|>' is in the vocabulary already") as raised:
        load_model("tiny", given, untied)
    assert "bases.tiny.new_tokens" in str(raised.value)
    with pytest.raises(ValueError, match="there twice"):
        BaseSpec(model="nano", new_tokens=("<a>", "<a>"))
    with pytest.raises(ValueError, match="pattern"):
        BaseSpec(model="nano", new_tokens=(" <a>",))


def outside(folder: Path, config: Any, tokens: tuple[str, ...] | None) -> Path:
    """What of an adapter from outside says which tokens it has trained."""
    folder.mkdir()
    if tokens is not None:
        theirs = tiny_models.tokenizer()
        theirs.add_tokens(list(tokens))
        theirs.save_pretrained(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"trainable_token_indices": config}))
    return folder


@pytest.mark.parametrize(
    ("config", "tokens", "said"),
    [
        ([FIRST], ("<refund>",), None),
        ({"embed_tokens": [FIRST + 1], "lm_head": [FIRST + 1]}, NEW, None),
        ([5, FIRST + 2], None, None),
        (None, ("<other>",), None),
        ([FIRST], ("<other>",), r"doesn't have in their places: \"<other>\""),
        (
            [FIRST + 3],
            (*NEW, "<more>"),
            r'Give the base the same: bases.tiny.new_tokens: \["<more>"\]',
        ),
        ([FIRST + 3], None, f"the row of token {FIRST + 3}, and base tiny has no such"),
        ([-1], None, "the row of token -1"),
        ("all", None, "it names no tokens"),
        ({"lm_head": [True]}, None, "it names no tokens"),
        ({"lm_head": 7}, None, "it names no tokens"),
    ],
)
def test_an_adapter_from_outside_has_trained_tokens_of_this_base(
    untied: Path, tmp_path: Path, config: Any, tokens: tuple[str, ...] | None, said: str | None
) -> None:
    own = loaded_from(untied).tokenizer
    folder = outside(tmp_path / "theirs", config, tokens)
    given = json.loads((folder / "adapter_config.json").read_text())
    if said is None:
        check_tokens(folder, given, own, "tiny", "theirs")
        return
    with pytest.raises(UserError, match=said):
        check_tokens(folder, given, own, "tiny", "theirs")


def test_one_without_a_tokenizer_that_can_be_read_is_refused(untied: Path, tmp_path: Path) -> None:
    folder = outside(tmp_path / "theirs", [FIRST], NEW)
    own = loaded_from(untied).tokenizer
    for text in ("{", "[]", '{"added_tokens": [{"id": "x"}]}', '{"added_tokens": 7}'):
        (folder / "tokenizer.json").write_text(text)
        with pytest.raises(UserError, match="no tokenizer"):
            check_tokens(folder, {"trainable_token_indices": [FIRST]}, own, "tiny", "theirs")
