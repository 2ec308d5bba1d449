"""The identity of a base: found without importing torch, and the same on any machine.

A large base in half precision is the exception, where the spec doesn't say what it is computed in:
the machine is asked whether it is fast in that.

A base is the built-in `nano`, a local folder, a GGUF file, or a Hub repository at a commit. Its
digest covers all that decides what the model answers: weights, config, tokenizer, chat template,
the dtype it is computed in and its quantisation. Only safetensors are read: a pickled checkpoint
runs code.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from registry.chat.settings import (
    CLOCK,
    ChatSettings,
    System,
    Thinking,
    ToolForm,
    checked_date,
    switch,
    workspace_date,
)
from registry.errors import ModelError, UserError
from registry.models.base_config import CONTEXT_KEYS, indexed, read_config, read_object
from registry.models.files import TOKENIZER_FILES, holds_changed
from registry.models.from_gguf import VERSION, folder_of, gguf_file
from registry.models.half import why_slow
from registry.models.safetensors_header import read_header
from registry.store.filenames import (
    GENERATION_CONFIG,
    MODEL_CONFIG,
    MODEL_INDEX,
    MODEL_WEIGHTS,
    STATE,
    TOKENIZER_CONFIG,
)
from registry.store.hashing import digest, file_digest, remembered_digest
from registry.store.objects import Store

Dtype = Literal["fp32", "fp16", "bf16"]
Quantization = Literal["nf4", "fp4", "int8"]
# Blanks at its ends would be lost wherever texts are trimmed.
NewToken = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\S(.*\S)?$")]

# YAML reads an unquoted on or off as true or false, and an unquoted day as a date.
Switch = Annotated[Thinking, BeforeValidator(switch)]
Date = Annotated[
    str,
    BeforeValidator(lambda day: day.isoformat() if isinstance(day, dt.date) else day),
    Field(pattern=r"^\d{4}-\d\d-\d\d$"),
    AfterValidator(checked_date),
]

NANO = "nano"
MERGED = "merged:"
DEFAULT_CONTEXT = 2048
# Below this size a base without a `dtype` is computed in fp32 (exact and, on a CPU, no slower);
# above it in the dtype of its checkpoint, because fp32 would double its memory; but never in one
# that this machine is slow in.
FP32_UP_TO_PARAMETERS = 500_000_000

_UNTOLD = asdict(ChatSettings())
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_DIGITS = re.compile(r"[0-9a-f]{4,64}")
"""The files of a tokenizer and its chat template, under any name that transformers gives them."""

# Everything but the weights that decides tokens and logits. Python files matter only where the
# spec lets them run.
_IDENTITY_FILES = (MODEL_CONFIG, GENERATION_CONFIG, *TOKENIZER_FILES)
_CARD = "README.md"  # which says the licence, to a report that asks nobody
_SMALL_FILES = (*_IDENTITY_FILES, MODEL_INDEX, "additional_chat_templates/*", _CARD)
# The same weights once more, in another form or another precision.
_SECOND_COPIES = ("*/*", "consolidated*", "model.fp*", "model.bf*", "adapter*")
_WIDTH_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
_DTYPE_NAMES: dict[str, Dtype] = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


class BaseSpec(BaseModel):
    """A base as the spec names it.

    `model` is 'nano', a folder or a GGUF file (relative to the workspace), 'smollm2', a Hub id, or
    `merged:ID` for a model that was merged here; `revision` is a Hub branch, tag or commit. `dtype`
    is what it is computed in, `quantize` how its linear layers are stored: LoRA on a quantised base
    is QLoRA. `new_tokens` are added to its vocabulary, with embedding rows that are trained.
    `thinking`, `system`, `date` and `tools` are how its chat template is spoken to, see
    `ChatSettings`; without a `date`, a template that writes one writes the day on which the
    workspace first used such a base.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    revision: str | None = None
    dtype: Dtype | None = None
    quantize: Quantization | None = None
    trust_remote_code: bool = False
    license: str | None = None
    new_tokens: tuple[NewToken, ...] = ()
    thinking: Switch = "auto"
    system: System = "keep"
    date: Date | None = None
    tools: ToolForm = "template"

    @field_validator("new_tokens", mode="after")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        again = next((token for token in value if value.count(token) > 1), None)
        if again is not None:
            message = f"'{again}' is there twice"
            raise ValueError(message)
        return value


@dataclass(frozen=True, slots=True)
class BaseIdentity:
    """A base, pinned.

    Attributes:
        name: its name in the spec.
        source: 'nano', 'folder', 'file.gguf' or 'owner/repo@commit'.
        digest: SHA-256 over weights, config, tokenizer and template (or GGUF file, or Hub id and
            commit), dtype and quantisation.
        parameters: how many weights its checkpoint stores.
        context: the longest sequence it takes, in tokens.
        architecture: the class that its config names, such as 'LlamaForCausalLM'.
        dtype: what it is computed in.
        stops: tokens at which its config and generation config end an answer.
        width: of a token's state, where its config says so under a usual name.
        chat: how it is spoken to.
    """

    name: str
    source: str
    digest: str
    parameters: int
    context: int
    architecture: str
    dtype: Dtype
    stops: tuple[int, ...] = ()
    width: int | None = None
    chat: ChatSettings = field(default_factory=ChatSettings)

    @property
    def public_name(self) -> str:
        """What others know it by: a Hub id, 'nano', or the folder's name without its path."""
        return self.source.partition("@")[0] if self.commit else self.source

    @property
    def commit(self) -> str | None:
        """Its commit, for one from the Hub."""
        return self.source.partition("@")[2] if "/" in self.source else None


@dataclass(frozen=True, slots=True)
class BaseFolder:
    """Where a base's files are.

    `hub` is 'owner/repo@commit' for a snapshot from the Hub; `gguf` the file that they were made
    of.
    """

    path: Path
    hub: str | None
    gguf: Path | None = None


def nano_folder() -> Path:
    """The folder of the built-in base."""
    return Path(__file__).parent.parent / "nano"


def identify(name: str, spec: BaseSpec, root: Path) -> BaseIdentity:
    """Identify a base, reading (of the Hub: fetching) no more than that needs.

    Args:
        name: the base's name in the spec.
        spec: what the spec says about it.
        root: the workspace; relative folders start there, hashes of large files are kept there.

    Raises:
        UserError: no such folder or repository, no weights, or only pickled ones.
    """
    where = f"bases.{name}"
    folder = locate(name, spec, root)
    config = read_config(folder.path, where)
    files = weight_files(folder.path)
    if not files and folder.hub is None:
        raise _without_weights(folder.path, where)
    if files:
        parameters = _parameters(files)
    else:
        from registry.hub.base import stored_parameters

        parameters = stored_parameters(str(folder.hub), where)
    dtype = spec.dtype or _default_dtype(config, parameters, root)
    identity: dict[str, Any] = {
        "format": 1,
        "weights": folder.hub or {file.name: remembered_digest(file, root) for file in files},
        "files": None if folder.hub else _identity_files(folder.path, spec),
        **_identity_of_gguf(folder.gguf, root),
        "dtype": dtype,
        "quantize": spec.quantize,
    }
    if spec.new_tokens:
        identity["new_tokens"] = list(spec.new_tokens)
    chat = chat_settings(spec, folder.path, root, where)
    told = {key: value for key, value in asdict(chat).items() if value != _UNTOLD[key]}
    if told:
        identity["chat"] = told
    return BaseIdentity(
        name=name,
        source=NANO if spec.model == NANO else folder.hub or (folder.gguf or folder.path).name,
        digest=digest(identity),
        parameters=parameters,
        context=_context(config, folder.path, where),
        architecture=str((config.get("architectures") or [config.get("model_type", "?")])[0]),
        dtype=dtype,
        stops=_stops(config, folder.path),
        width=_width(config),
        chat=chat,
    )


def chat_settings(spec: BaseSpec, folder: Path, root: Path, where: str) -> ChatSettings:
    """What the base's chat template is told; the date only where it would ask the clock for it.

    Raises:
        UserError: the workspace's date can't be kept.
    """
    date = None
    if any(CLOCK in path.read_text("utf-8", "replace") for path in _template_files(folder)):
        date = spec.date or workspace_date(root / STATE, where)
    return ChatSettings(spec.thinking, spec.system, date, spec.tools)


def _template_files(folder: Path) -> list[Path]:
    names = (folder / "chat_template.jinja", folder / TOKENIZER_CONFIG)
    named = folder.glob("additional_chat_templates/*.jinja")
    return [path for path in (*names, *named) if path.is_file()]


def stops_in(folder: Path) -> tuple[int, ...]:
    """The end tokens that a folder's configs name; none where it has no config.json.

    Raises:
        UserError: config.json can't be read.
    """
    there = (folder / MODEL_CONFIG).is_file()
    return _stops(read_config(folder, folder.name), folder) if there else ()


def _stops(config: dict[str, Any], folder: Path) -> tuple[int, ...]:
    """The end tokens of config.json and generation_config.json."""
    path = folder / GENERATION_CONFIG
    try:
        generation = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError:
        generation = {}  # what loads the model says so
    found: set[int] = set()
    for one in (config, config.get("text_config") or {}, generation):
        ends = one.get("eos_token_id")
        found |= {end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int}
    return tuple(sorted(found))


def locate(name: str, spec: BaseSpec, root: Path, *, weights: bool = False) -> BaseFolder:
    """The folder of a base: the built-in one, a local one, that of a GGUF file, or a snapshot.

    Args:
        name: the base's name in the spec.
        spec: what the spec says about it.
        root: where relative folders start.
        weights: fetch the weights too (of a Hub repository, where they aren't in the cache).

    Raises:
        UserError: it isn't there, has no safetensors, or is a GGUF file that no base can be made
            of.
    """
    where = f"bases.{name}"
    if spec.model == NANO:
        return BaseFolder(nano_folder(), None)
    if spec.model.startswith(MERGED):
        return BaseFolder(_merged_folder(spec.model.removeprefix(MERGED), root, where), None)
    local = (root / Path(spec.model).expanduser()).resolve()
    file = None if local.is_dir() else gguf_file(spec.model, root, where)
    if spec.revision and (file or local.is_dir()):
        raise ModelError(
            f"{spec.model} is a {'file' if file else 'folder'} and has no revision {spec.revision}",
            f"{where}.revision",
            fix="leave revision out: it is identified by its content",
        )
    if file is not None:
        return BaseFolder(folder_of(file, root, where), None, file)
    if local.is_dir():
        return BaseFolder(local, None)
    if not _HUB_ID.fullmatch(spec.model):
        raise ModelError(
            f"no folder {spec.model}", f"{where}.model", "a folder, a GGUF file, a Hub id or 'nano'"
        )
    return _hub_folder(spec, where, root, weights=weights)


def _merged_folder(prefix: str, root: Path, where: str) -> Path:
    models = root / STATE / "objects" / "model"
    found = sorted(models.glob(f"{prefix}*")) if _DIGITS.fullmatch(prefix) else []
    if len(found) != 1:
        what = f"{len(found)} merged models have" if found else "no merged model has"
        raise ModelError(
            f"{what} the id '{prefix}'",
            f"{where}.model",
            expected="merged: and the first digits of a model's id",
            fix='list them: gapmend sql "select merge_id, path from merges"',
        )
    if holds_changed(found[0]):
        raise ModelError(
            f"model {found[0].name[:12]} holds the tensors alone that training changed",
            f"{where}.model",
            expected="a whole model",
            fix=f"make one of it: gapmend merge --adapter {found[0].name[:12]}",
        )
    return Store(root / STATE).get("model", found[0].name).path


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors that a model in a folder is loaded from, by name; no copies beside them."""
    named = [folder / name for name in indexed(folder)] or [folder / MODEL_WEIGHTS]
    if not any(path.is_file() for path in named):
        named = list(folder.glob("*.safetensors"))
        copies = [path for one in _SECOND_COPIES for path in folder.glob(one)]
        named = [path for path in named if path not in copies]
    return tuple(sorted(path for path in named if path.is_file()))


def check_weights(folder: Path, where: str) -> None:
    """Refuse a folder that holds no safetensors.

    Raises:
        UserError: there are no weights, or only pickled ones.
    """
    if not weight_files(folder):
        raise _without_weights(folder, where)


def _without_weights(folder: Path, where: str) -> UserError:
    pickled = sorted(p.name for pattern in _PICKLED for p in folder.glob(pattern))
    if pickled:
        return ModelError(
            f"{folder} has only pickled weights ({pickled[0]})",
            where,
            "*.safetensors: a pickle can run code when it is loaded",
            "convert it with save_pretrained where you trust it",
        )
    return ModelError(f"{folder} has no weights", where, "a folder with *.safetensors")


def _hub_folder(spec: BaseSpec, where: str, root: Path, *, weights: bool) -> BaseFolder:
    from registry.hub.base import fetch_snapshot

    patterns = [*_SMALL_FILES, *(["*.py"] if spec.trust_remote_code else [])]
    path = fetch_snapshot(spec.model, spec.revision, patterns, where, root)
    if weights:
        names = [*indexed(path)] or [MODEL_WEIGHTS]
        fetch_snapshot(spec.model, path.name, names, where, root)
        if not weight_files(path):  # under names of its own
            fetch_snapshot(spec.model, path.name, ["*.safetensors"], where, root, _SECOND_COPIES)
        check_weights(path, where)
    return BaseFolder(path, f"{spec.model}@{path.name}")


def _identity_files(folder: Path, spec: BaseSpec) -> dict[str, str]:
    names = [folder / name for name in _IDENTITY_FILES]
    names += sorted(folder.glob("additional_chat_templates/*"))
    names += sorted(folder.glob("*.py")) if spec.trust_remote_code else []
    return {str(p.relative_to(folder)): file_digest(p) for p in names if p.is_file()}


def _identity_of_gguf(file: Path | None, root: Path) -> dict[str, Any]:
    """What decides a base from a GGUF file: its bytes, and how they are read."""
    if file is None:
        return {}
    return {"weights": {"gguf": remembered_digest(file, root), "read": VERSION}, "files": None}


def _parameters(files: tuple[Path, ...]) -> int:
    """Stored weights, from the safetensors headers alone."""
    return sum(math.prod(one.shape) for path in files for one in read_header(path).values())


def _default_dtype(config: dict[str, Any], parameters: int, root: Path) -> Dtype:
    if parameters <= FP32_UP_TO_PARAMETERS:
        return "fp32"
    text = config.get("dtype") or config.get("torch_dtype") or "float32"
    stored = _DTYPE_NAMES.get(str(text), "fp32")
    return "fp32" if stored == "fp32" or why_slow(stored, root) else stored


def _width(config: dict[str, Any]) -> int | None:
    text = config.get("text_config") or config
    found = (text.get(key) for key in _WIDTH_KEYS)
    return next((size for size in found if type(size) is int and size > 0), None)


def _context(config: dict[str, Any], folder: Path, where: str) -> int:
    """Context length by lm-eval's rules: the text config first, then the tokenizer's limit."""
    text = config.get("text_config") or config
    for key in CONTEXT_KEYS:
        if text.get(key) is not None:
            return int(text[key])
    limit = read_object(folder / TOKENIZER_CONFIG, where).get("model_max_length")
    if not isinstance(limit, int | float) or not 0 < limit < 10**9:  # 1e30 for "no limit"
        return DEFAULT_CONTEXT
    return int(limit)
