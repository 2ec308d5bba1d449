"""`train.kl`: what it is refused beside, and that without it nothing is decided otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.spec.train import TrainSpec


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *(
            ({"method": method}, f"kl needs the base beside what is trained, and {method} has")
            for method in ("full", "freeze", "pissa")
        ),
        ({"objective": "dpo"}, "kl is for sft, and dpo has its own way"),
        ({"dropout": 0.1}, "kl compares two likelihoods"),
    ],
)
def test_kl_is_refused_by_name_where_there_is_no_base_to_keep_to(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        TrainSpec(base="b", kl=0.1, **given)
    TrainSpec(base="b", **given)


@pytest.mark.parametrize("method", ["lora", "dora", "rslora", "lora+"])
def test_kl_decides_an_adapter_where_it_is_on(method: Any) -> None:
    plain, kept = TrainSpec(base="b", method=method), TrainSpec(base="b", method=method, kl=0.1)
    assert "kl" not in plain.deciding()
    assert kept.deciding() == plain.deciding() | {"kl": 0.1}
