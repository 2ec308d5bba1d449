"""A GGUF file made a folder of transformers: `python -m`, JSON on stdin, in a limited process.

The folder gets config, weights (safetensors), tokenizer, chat template and, where the file names
its licence, a card. The last line of stdout is what was lost or guessed, as a JSON list of lines
for people. What is wrong is the last line of stderr.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import UserError
from registry.gguf.file import GgufFile
from registry.gguf.tokens import tokenizer_of, tokens_of
from registry.models.base import FP32_UP_TO_PARAMETERS
from registry.store.filenames import GENERATION_CONFIG, MODEL_CONFIG, MODEL_INDEX, MODEL_WEIGHTS

if TYPE_CHECKING:
    from registry.gguf.tokens import Tokens

_MEMORY = 16 << 30  # bytes of addresses beside the file's; torch maps several GiB
_SHARD = 2 << 30  # bytes of weights in memory at once, and in one file
_AS_THEY_ARE = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LICENSE = re.compile(r"[\w.-]{1,64}")


def main() -> None:
    """Read which file on stdin, make the folder, or leave with what is wrong."""
    path, folder, seconds = json.loads(sys.stdin.read())
    _limit(seconds, Path(path).stat().st_size)
    try:
        notes = unpack(Path(path), Path(folder))
    except UserError as error:
        sys.exit(" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - whatever a library stumbles over is the file's
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
    sys.stdout.write(json.dumps(notes) + "\n")


def unpack(path: Path, folder: Path) -> list[str]:
    """Make a folder of a GGUF file, and return what was lost or guessed.

    Raises:
        UserError: it is cut off, without a tokenizer, or of an architecture that isn't known.
    """
    file = GgufFile(path)
    config, tokens = file.whole_config(), tokens_of(file)
    notes = [_write_weights(file, config, folder), *tokens.guessed]
    notes += [f"its figure {file.arch}.{name} isn't read" for name in file.unread()]
    _write_config(config, tokens, folder)
    _write_tokenizer(file, tokens, folder)
    license_name = str(file.figures.get("general.license", ""))
    if _LICENSE.fullmatch(license_name):
        card = f"---\nlicense: {license_name}\n---\nMade of {path.name}.\n"
        (folder / "README.md").write_text(card, encoding="utf-8")
    return notes


def _limit(seconds: int, size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY + size, _MEMORY + size))


def _write_weights(file: GgufFile, config: Any, folder: Path) -> str:
    """Write the weights, and return how they were stored before."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    parameters = dict(empty.named_parameters())
    total = sum(one.numel() for one in parameters.values())
    plain = "float32" if total <= FP32_UP_TO_PARAMETERS else "bfloat16"
    names = file.names(empty)
    kinds = {name: file.tensors[names[name]].tensor_type.name for name in parameters}
    dtypes = {name: _AS_THEY_ARE.get(kind, plain) for name, kind in kinds.items()}
    shards = _shards({name: one.numel() for name, one in parameters.items()}, dtypes)
    where = dict.fromkeys(shards[0], MODEL_WEIGHTS)
    if len(shards) > 1:
        files = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_parameters": total}, "weight_map": where}
        (folder / MODEL_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    waiting: dict[str, Any] = {}
    for name, weight in file.state(empty):
        waiting[name] = torch.tensor(weight).to(getattr(torch, dtypes[name]))
        shard = where[name]
        if len(waiting) == sum(one == shard for one in where.values()):
            save_file(waiting, folder / shard, metadata={"format": "pt"})
            waiting.clear()
    sizes = Counter[str]()
    for name, dtype in dtypes.items():
        sizes[dtype] += parameters[name].numel()
    config.dtype = sizes.most_common(1)[0][0]
    packed = Counter(kind for kind in kinds.values() if kind not in _AS_THEY_ARE)
    if not packed:
        return f"its weights are those of the file, {config.dtype}"
    kept = "in float32, exactly" if plain == "float32" else "rounded to bfloat16"
    told = " and ".join(f"{count} as {kind}" for kind, count in packed.most_common())
    return f"quantised: of {len(kinds)} tensors {told}; what is left of them is kept {kept}"


def _shards(counts: dict[str, int], dtypes: dict[str, str]) -> list[list[str]]:
    """Return the names of the weights, in their order, as they are kept together."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, count in counts.items():
        more = count * (4 if dtypes[name] == "float32" else 2)
        if shards[-1] and size + more > _SHARD:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    return shards


def _write_config(config: Any, tokens: Tokens, folder: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    ends = list(tokens.ends)
    ids = {
        "bos_token_id": tokens.special.get("bos"),
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": tokens.special.get("padding"),
    }
    for key, value in ids.items():
        setattr(config, key, value)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
    config.to_json_file(folder / MODEL_CONFIG)
    told = {key: value for key, value in ids.items() if value is not None}
    (folder / GENERATION_CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(file: GgufFile, tokens: Tokens, folder: Path) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = tokenizer_of(file)
    around = [(tokens.texts[index], index) for index in (*tokens.front, *tokens.back)]
    if around:
        front = [tokens.texts[index] for index in tokens.front]
        back = [tokens.texts[index] for index in tokens.back]
        made.post_processor = TemplateProcessing(
            single=[*front, "$A", *back],
            pair=[*front, "$A", *back, *(f"{one}:1" for one in front), "$B:1"],
            special_tokens=around,
        )
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    special = {
        f"{ours}_token": tokens.texts[tokens.special[theirs]]
        for theirs, ours in names.items()
        if theirs in tokens.special
    }
    whole = PreTrainedTokenizerFast(
        tokenizer_object=made, clean_up_tokenization_spaces=False, **special
    )
    if tokens.template is not None:
        whole.chat_template = tokens.template
    whole.save_pretrained(str(folder))


if __name__ == "__main__":
    main()
