"""lm-eval's own command line, with the engine among its models under the name `gapmend`.

Import this module late: it loads lm_eval and torch. lm-eval finds models in a fixed mapping and has
no discovery of plug-ins, so that whoever wants the engine there has to register it first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lm_eval.api.registry import register_model

from evals.engine.packed import PackedLM
from registry.errors import UserError
from registry.intake.base import check_base
from registry.models.base import BaseSpec, Dtype, Quantization, identify
from registry.models.load import load_model
from registry.store.filenames import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = "gapmend"
_DTYPES: dict[str, Dtype] = {
    "fp32": "fp32",
    "float32": "fp32",
    "fp16": "fp16",
    "float16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
}


@register_model(MODEL)
class HarnessLM(PackedLM):
    """The engine as lm-eval makes it from `--model_args`; names are those of its `hf` model.

    Args:
        pretrained: a folder with safetensors, a Hub id, or `nano`.
        revision: of a Hub id.
        dtype: fp32, fp16 or bf16 (also by torch's names); `auto` is the checkpoint's.
        peft: the folder of a LoRA adapter.
        quantize: nf4, fp4 or int8.
        trust_remote_code: run the repository's own code.
        enable_thinking: told to the chat template, as `thinking: on` and `off` of a base are.
        batch_size: not used, like the next two: the engine fills batches by tokens, on the GPU
            where there is one.
        max_batch_size: see batch_size.
        device: see batch_size.
    """

    def __init__(  # noqa: PLR0913 - the keys that `--model_args` may have
        self,
        pretrained: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        peft: str | None = None,
        quantize: str | None = None,
        trust_remote_code: bool = False,
        enable_thinking: bool | None = None,
        batch_size: int | str | None = None,  # noqa: ARG002
        max_batch_size: int | None = None,  # noqa: ARG002
        device: str | None = None,  # noqa: ARG002
    ) -> None:
        """See the class."""
        if dtype != "auto" and dtype not in _DTYPES:
            raise UserError(f"no dtype '{dtype}'", "--model_args dtype", "fp32, fp16, bf16 or auto")
        spec = BaseSpec(
            model=pretrained,
            revision=revision,
            dtype=_DTYPES.get(dtype),
            quantize=cast("Quantization | None", quantize),
            trust_remote_code=trust_remote_code,
            thinking="auto" if enable_thinking is None else "on" if enable_thinking else "off",
        )
        check_base(MODEL, spec, Path.cwd(), identify(MODEL, spec, Path.cwd()))
        loaded = load_model(MODEL, spec, Path.cwd())
        if peft is not None:
            loaded.use(_adapter(peft))
        super().__init__(loaded)


def main(arguments: Sequence[str]) -> None:
    """Run `lm-eval` with these arguments, as its own program does.

    Raises:
        UserError: what lm-eval raises for a wrong argument, an unknown task or missing data.
    """
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *arguments]
    try:
        cli_evaluate()
    except (ValueError, TypeError, FileNotFoundError) as error:
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(said, "lm-eval", fix="see gapmend lm-eval run --help") from error


def _adapter(folder: str) -> Path:
    path = Path(folder)
    if not (path / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"no adapter in {folder}",
            where="--model_args peft",
            expected="a folder with adapter_config.json and adapter_model.safetensors",
        )
    return path
