"""The conversion of a model's folder to one GGUF file, tensor by tensor."""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from registry.errors import GateRefusedError, ModelError
from registry.gguf.architectures import architecture_of, figures, permute, rope_factors
from registry.gguf.file import ROPE_FACTORS
from registry.gguf.vocabulary import vocabulary_of
from registry.models.base import check_weights, weight_files
from registry.models.quiet import quiet_libraries
from registry.store.filenames import GENERATION_CONFIG, MODEL_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry.gguf.architectures import Architecture, Array
    from registry.gguf.vocabulary import Vocabulary

GgufType = Literal["f32", "f16", "q8_0"]

_HEAD = "lm_head.weight"
_QUANTIZATION_VERSION = 2  # of ggml's blocks; gguf.GGML_QUANT_VERSION


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder, read as far as its weights.

    Attributes:
        folder: where it is.
        config: of transformers.
        arch: how it is written.
        tokenizer: of transformers.
        vocabulary: its tokenizer as GGUF keeps it.
        ends: ids of the tokens that end an answer.
    """

    folder: Path
    config: Any
    arch: Architecture
    tokenizer: Any
    vocabulary: Vocabulary
    ends: tuple[int, ...]


def read_source(folder: Path) -> ModelFolder:
    """Read config and tokenizer of a model's folder, and refuse what GGUF can't say.

    Raises:
        UserError: the folder holds no model, or one that llama.cpp would compute otherwise.
    """
    from transformers import AutoConfig, AutoTokenizer

    check_weights(folder, folder.name[:12])
    try:
        with quiet_libraries():
            config = AutoConfig.from_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"config or tokenizer can't be read: {error}", folder.name[:12]) from error
    arch = architecture_of(config, MODEL_CONFIG)
    ends = _ends(folder, config, tokenizer)
    vocabulary = vocabulary_of(tokenizer, int(config.vocab_size), ends)
    return ModelFolder(folder, config, arch, tokenizer, vocabulary, ends)


def write_gguf(
    source: ModelFolder,
    target: Path,
    dtype: GgufType,
    *,
    name: str,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the model to the file `target`, on the disk on return.

    Vectors stay f32, as in llama.cpp's own files, and of q8_0 a matrix whose rows are no multiple
    of 32 is f16.

    Args:
        source: what to write.
        target: the file; overwritten.
        dtype: of the matrices.
        name: what the file says the model is called.
        advance: told how many tensors were written; `tensors_of` are there.

    Raises:
        UserError: a weight is missing, or llama.cpp has no name for one.
        GateRefusedError: a weight is no number, or too large for f16.
    """
    import gguf

    tensors = _Tensors(source)
    with _quiet_writer(), closing(gguf.GGUFWriter(target, source.arch.name)) as writer:
        _describe(writer, source, dtype, name)
        for called, original in tensors.names.items():
            shape = tensors.shape(original)
            _announce(writer, called, shape, stored_type(called, shape, dtype))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for called, original in tensors.names.items():
            writer.write_tensor_data(_stored(called, tensors.read(original), dtype))
            advance(1)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def stored_type(name: str, shape: tuple[int, ...], dtype: GgufType) -> Any:
    """Return gguf's type of one tensor in a file of `dtype`."""
    import gguf

    types = gguf.GGMLQuantizationType
    if dtype == "f32" or len(shape) < 2 or name == ROPE_FACTORS:  # noqa: PLR2004 - a vector
        return types.F32
    block = gguf.GGML_QUANT_SIZES[types.Q8_0][0]
    return types.Q8_0 if dtype == "q8_0" and shape[-1] % block == 0 else types.F16


def tensors_of(source: ModelFolder) -> int:
    """Return how many tensors the file of a model has.

    Raises:
        UserError: as `write_gguf`.
    """
    return len(_Tensors(source).names)


def original_tensors(source: ModelFolder) -> Iterator[tuple[str, Array]]:
    """Every tensor of the file under llama.cpp's name, as it is before it is rounded."""
    tensors = _Tensors(source)
    for called, original in tensors.names.items():
        yield called, tensors.read(original)


class _Tensors:
    """The weights of a folder by llama.cpp's names, each read when it is asked for."""

    def __init__(self, source: ModelFolder) -> None:
        import gguf

        self.source = source
        self.files = _where_weights_are(source.folder)
        kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == source.arch.name)
        table = gguf.get_tensor_name_map(kind, int(source.config.num_hidden_layers))
        self.factors = rope_factors(source.config)
        self.names: dict[str, str] = {} if self.factors is None else {ROPE_FACTORS: ROPE_FACTORS}
        for original in sorted(self.files):
            if original == _HEAD and source.config.tie_word_embeddings:
                continue
            called = table.get_name(original, try_suffixes=(".weight", ".bias"))
            if called is None or not _is_known(original, source.arch):
                raise ModelError(
                    f"llama.cpp's {source.arch.name} has no tensor {original}",
                    source.folder.name[:12],
                )
            self.names[called] = original

    def shape(self, original: str) -> tuple[int, ...]:
        from safetensors import safe_open

        if original == ROPE_FACTORS and self.factors is not None:
            return tuple(self.factors.shape)
        with safe_open(self.files[original], framework="pt") as file:
            return tuple(file.get_slice(original).get_shape())

    def read(self, original: str) -> Array:
        from safetensors import safe_open

        if original == ROPE_FACTORS and self.factors is not None:
            return self.factors
        with safe_open(self.files[original], framework="pt") as file:
            weight: Array = file.get_tensor(original).float().numpy()
        return self._arranged(original, weight)

    def _arranged(self, original: str, weight: Array) -> Array:
        import numpy as np

        arch, config = self.source.arch, self.source.config
        if original.endswith("norm.weight") and arch.norm_offset:
            return weight + np.float32(arch.norm_offset)
        layer = original.rpartition(".")[0]
        if arch.permuted and layer.endswith((".q_proj", ".k_proj")):
            queries = layer.endswith(".q_proj")
            heads = config.num_attention_heads if queries else config.num_key_value_heads
            return permute(weight, int(heads))
        return weight


def _is_known(original: str, arch: Architecture) -> bool:
    layer, _, kind = original.rpartition(".")
    return kind != "bias" or layer.rpartition(".")[2] in arch.biases


def _where_weights_are(folder: Path) -> dict[str, Path]:
    from safetensors import SafetensorError, safe_open

    found: dict[str, Path] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except SafetensorError as error:
            raise ModelError(f"not a whole safetensors file: {error}", path.name) from error
    return found


def _announce(writer: Any, name: str, shape: tuple[int, ...], kind: Any) -> None:
    """Tell the writer what is to come under a name."""
    import gguf
    import numpy as np

    types = gguf.GGMLQuantizationType
    plain = {types.F32: np.float32, types.F16: np.float16}
    block, size = gguf.GGML_QUANT_SIZES[kind]
    stored = (*shape[:-1], shape[-1] // block * size) if kind not in plain else shape
    width = int(np.dtype(plain.get(kind, np.uint8)).itemsize)
    written = int(np.prod(stored)) * width
    dtype = np.dtype(plain.get(kind, np.uint8))
    writer.add_tensor_info(name, stored, dtype, written, raw_dtype=kind)


def _stored(name: str, weight: Array, dtype: GgufType) -> Any:
    import gguf
    import numpy as np

    kind = stored_type(name, weight.shape, dtype)
    with np.errstate(over="ignore"):
        made = gguf.quants.quantize(np.ascontiguousarray(weight), kind)
        rounded = gguf.quants.dequantize(made, kind)
    if not np.isfinite(rounded).all():
        what = "is no number" if not np.isfinite(weight).all() else f"doesn't fit {kind.name}"
        message = f"export refused: a weight of {name} {what}"
        raise GateRefusedError(message)
    return made


def _describe(writer: Any, source: ModelFolder, dtype: GgufType, name: str) -> None:
    """Write all but the tensors: the model's figures and its vocabulary."""
    import gguf

    types = gguf.LlamaFileType
    kinds = {"f32": types.ALL_F32, "f16": types.MOSTLY_F16, "q8_0": types.MOSTLY_Q8_0}
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(kinds[dtype])
    writer.add_quantization_version(_QUANTIZATION_VERSION)
    for key, value in figures(source.config, source.arch, MODEL_CONFIG).items():
        full = f"{source.arch.name}.{key}"
        if isinstance(value, str):
            writer.add_string(full, value)
        elif isinstance(value, float):
            writer.add_float32(full, value)
        else:
            writer.add_uint32(full, value)
    _describe_vocabulary(writer, source.vocabulary)


def _describe_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list([token.encode() for token in vocabulary.tokens])
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.model == "gpt2":
        writer.add_token_merges(list(vocabulary.merges))
    else:
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(vocabulary.space_prefix)
    for name, index in vocabulary.special.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def _ends(folder: Path, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return ids of the tokens that end an answer, the tokenizer's own first."""
    path = folder / GENERATION_CONFIG
    try:
        generation = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"not JSON: {error}", path.name) from error
    found: list[int] = []
    for ids in (tokenizer.eos_token_id, generation.get("eos_token_id"), config.eos_token_id):
        found += ids if isinstance(ids, list) else [] if ids is None else [ids]
    return tuple(dict.fromkeys(found))


@contextmanager
def _quiet_writer() -> Iterator[None]:
    """Without the library's remarks on what it writes."""
    logger = logging.getLogger("gguf.gguf_writer")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


TYPES: tuple[GgufType, ...] = get_args(GgufType)
