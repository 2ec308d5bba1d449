"""Whether an adapter from outside has its places in a base: PEFT is asked in another process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UserError
from registry.intake import adapter_places as incoming_places
from registry.intake.adapter_places import check_fits
from registry.models.base import BaseSpec

NANO = BaseSpec(model="nano")


def adapter(folder: Path, **config: Any) -> Path:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    given = {"peft_type": "LORA", "base_model_name_or_path": "nano", "r": 4, **config}
    (folder / "adapter_config.json").write_text(json.dumps(given), "utf-8")
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.usefixtures("python_of_its_own")
def test_what_peft_makes_of_it_is_found_in_a_process_of_its_own(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    fit = incoming_places._fit(folder, str(tmp_path), "nano", NANO, tmp_path)
    assert {shape[0] for name, shape in fit.places.items() if "lora_A" in name} == {4}
    assert fit.wrong["no place in the base"] == ["a"]


def test_what_peft_refuses_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path / "a", target_modules=["nothing"], task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="PEFT can't put it on base nano: ") as raised:
        check_fits(folder, "nano", NANO, tmp_path)
    assert "\n" not in str(raised.value)
    assert "".join(capfd.readouterr()) == ""


def test_a_pattern_that_does_not_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming_places, "_SECONDS", 2)
    folder = adapter(tmp_path / "a", target_modules="(([a-z_.0-9]+)+)+X", task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="putting it on base nano takes too much time"):
        check_fits(folder, "nano", NANO, tmp_path)
