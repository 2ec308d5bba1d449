"""What every architecture has, found in one place: hidden states, layers, sizes, known tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.engine.packed import PackedLM
from pipeline.training.fit import fit
from pipeline.training.preview import preflight as looked
from pipeline.training.preview.estimate import estimate
from pipeline.training.preview.look import look
from registry.errors import ModelError, UserError
from registry.intake import model as intake
from registry.models.classes import causal_class
from registry.models.load import LoadedModel
from registry.models.parts import decoder_layers
from registry.models.sizes import weight_sizes
from registry.publish.use.python_code import transformers_code
from registry.publish.use.usage import Place, UsedBase
from tests.architectures import configs
from tests.architectures.chain import SPEC, rows
from tests.support.used import usage

Base = Callable[..., LoadedModel]


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("llama", "model.layers"),
        ("smolvlm", "model.text_model.layers"),
        ("opt", "model.decoder.layers"),
        ("mamba", "backbone.layers"),
        ("llama4", "model.layers"),
    ],
)
def test_the_layers_are_those_of_the_text(base: Base, kind: str, layers: str) -> None:
    name, found = decoder_layers(base(kind).model)
    assert name == layers
    assert len(found) == (4 if kind == "llama4" else 2)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("gemma3n_text", "lora"),
        ("gemma4_text", "freeze"),
        ("deepseek_v3", "lora"),
        ("qwen2_5_vl", "full"),
    ],
)
def test_there_is_an_estimate(base: Base, kind: str, method: Any) -> None:
    found = look(base(kind), rows(), SPEC.model_copy(update={"method": method, "layers": 1}))
    assert found.estimate is not None
    assert found.estimate.activations > 0
    assert not [line for line in found.warnings if "estimated" in line]


def test_an_estimate_never_stops_a_run(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("no heads\nat all")

    monkeypatch.setattr(looked, "estimate", broken)
    said: list[str] = []
    found = fit(base("llama"), rows(), SPEC, tmp_path, log=said.append)
    assert found.losses
    line = "memory and time are not estimated (ZeroDivisionError: no heads)"
    assert f"warning: {line}" in said
    dry = look(base("llama"), rows(), SPEC)
    assert dry.estimate is None
    assert line in dry.warnings
    monkeypatch.setattr(looked, "estimate", estimate)
    with pytest.raises(UserError, match="no linear layer"):
        look(base("llama"), rows(), SPEC.model_copy(update={"targets": ("nothing",)}))


@pytest.fixture(scope="module")
def small(base: Base) -> LoadedModel:
    """A base whose tokenizer has tokens that it has no embeddings for."""
    return base("llama", vocab_size=300)


UNKNOWN = r"bases\.tiny: token '.+' has id \d+, and the base has embeddings for 300 tokens; .+"


def test_a_token_beyond_the_embeddings_is_one_line(small: LoadedModel, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance

    engine = PackedLM(small)

    def asked(kind: Any, *arguments: Any) -> list[Any]:
        return [Instance(request_type=kind, doc={}, arguments=arguments, idx=0)]

    text = "The quick brown fox card arrival"
    for work in (
        lambda: engine.loglikelihood(asked("loglikelihood", text, " sentiment")),
        lambda: engine.generate_until(asked("generate_until", text, {"max_gen_toks": 2})),
        lambda: fit(small, rows(), SPEC, tmp_path),
        lambda: look(small, rows(), SPEC),
    ):
        with pytest.raises(ModelError, match=UNKNOWN) as raised:
            work()
        assert "\n" not in str(raised.value)


def test_what_is_no_language_model_is_one_short_line() -> None:
    import transformers

    with pytest.raises(ModelError, match="no language model of model_type 'clip'") as raised:
        causal_class(transformers.CLIPConfig())
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "deepseek_v3", "gemma4"])
def test_sizes_are_those_of_the_model(base: Base, kind: str) -> None:
    parameters = sum(p.numel() for p in base(kind).model.parameters())
    assert weight_sizes(configs.config(kind)).parameters == parameters


@pytest.mark.parametrize("kind", ["mixtral", "gemma3"])
def test_a_model_whose_file_has_other_names_is_taken_in(
    base: Base, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(intake, "scan_files", lambda *_: [])  # seconds, and not of weights
    intake.check_model(Path(base(kind).model.config._name_or_path), "there")


@pytest.mark.parametrize(
    ("kind", "loader"),
    [("gemma3", "AutoModelForCausalLM"), ("qwen2_5_vl", "AutoModelForImageTextToText")],
)
def test_a_card_loads_a_base_by_its_class(base: Base, kind: str, loader: str) -> None:
    assert causal_class(base(kind).model.config).__name__ == loader
    used = usage(kind="model", base=UsedBase("me/base", loader=loader), place=Place("me/it", "1"))
    code = transformers_code(used)
    assert f"from transformers import {loader}, AutoTokenizer" in code
    assert f'model = {loader}.from_pretrained("me/it"' in code
