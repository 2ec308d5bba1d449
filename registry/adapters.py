"""Adapters in the store: published clean, found by id, named by aliases.

A published adapter is a PEFT folder (configuration, weights, tokenizer, chat template) without a
local path, a token or a pickle in it. Its bytes are canonical, so that the same weights with the
same configuration on the same base have the same id wherever they come from.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from registry.changed import holds_changed
from registry.errors import StoreError, UserError
from registry.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TOKENIZER_CONFIG
from registry.hashing import file_digest
from registry.identity import TOKENIZER_FILES
from registry.tensors import canonical_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from registry.catalog import Catalog
    from registry.manifest import Manifest, Meta
    from registry.models import BaseIdentity
    from registry.store import ObjectRef, Parent, Store


_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
_PRIVATE_KEYS = (
    "name_or_path",
    "tokenizer_file",
    "vocab_file",
    "merges_file",
    "special_tokens_map_file",
    "token",
    "use_auth_token",
    "auth_token",
    "cache_dir",
    "auto_map",
    "local_files_only",
)
_ROWS = ".token_adapter.trainable_tokens_delta"
_LIKE_AN_ID = re.compile(r"[0-9a-f]{4,64}")
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,62}")


def publish(
    store: Store,
    folder: Path,
    *,
    base: BaseIdentity,
    tokenizer: PreTrainedTokenizerBase,
    meta: Mapping[str, Any],
    parents: Sequence[Parent],
) -> ObjectRef:
    """Put the PEFT adapter in `folder` into the store; the caller commits it.

    Only the configuration and the weights are taken from `folder`; the tokenizer and its chat
    template are saved beside them. `meta` is for the record and does not decide the id.

    Raises:
        UserError: no adapter there, pickled or damaged weights, or a path or token in the
            configuration that no rule of ours removes.
    """
    from registry.kinds import AdapterMeta

    config = read_adapter_config(folder)
    with store.draft() as draft:
        weights = canonical_safetensors(weights_file(folder))
        (draft / ADAPTER_WEIGHTS).write_bytes(weights)
        _write_json(draft / ADAPTER_CONFIG, _clean_config(config, base, folder / ADAPTER_CONFIG))
        save_tokenizer(tokenizer, draft)
        identity = {
            "base": base.digest,
            "config": file_digest(draft / ADAPTER_CONFIG),
            "weights": file_digest(draft / ADAPTER_WEIGHTS),
        }
        facts = {
            "base": base.name,
            "peft_type": config.get("peft_type"),
            "rank": config.get("r"),
            "bytes": len(weights),
        }
        said = AdapterMeta.model_validate({**facts, **meta})
        return store.put("adapter", draft, identity=identity, parents=parents, meta=said)


def adapter_path(store: Store, adapter_id: str) -> Path:
    """Return the folder of an adapter, as PEFT loads it, or of changed tensors.

    Raises:
        StoreError: neither has this id.
    """
    return tuned_ref(store, adapter_id).path


def tuned_ref(store: Store, tuned_id: str) -> ObjectRef:
    """Return what goes on a base: an adapter, or a model that holds changed tensors alone.

    Raises:
        StoreError: neither has this id.
    """
    try:
        return store.get("adapter", tuned_id)
    except StoreError:
        model = store.get("model", tuned_id)
        if not holds_changed(model.path):
            raise
        return model


def is_tuned(manifest: Manifest[Meta]) -> bool:
    """Whether it goes on a base: an adapter, or a model that holds changed tensors alone."""
    is_changed = manifest.kind == "model" and "changed" in manifest.identity
    return is_changed or manifest.kind == "adapter"


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save tokenizer and chat template into `folder`, allow-listed files only, without paths."""
    saved = folder / "_tokenizer"
    tokenizer.save_pretrained(str(saved))
    for name in TOKENIZER_FILES:
        if (saved / name).is_file():
            shutil.move(saved / name, folder / name)
    shutil.rmtree(saved)
    path = folder / TOKENIZER_CONFIG
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in config.items() if key not in _PRIVATE_KEYS}
        _refuse_private(kept, path.name)
        _write_json(path, kept)


def write_scaled(source: Path, scale: float, target: Path) -> None:
    """Write the LoRA adapter in `source` to `target` with its deltas multiplied by `scale`.

    The B matrices (and LoRA biases) are multiplied, in their own dtype, so that whoever loads
    the result with PEFT at its ordinary scale gets `scale` times the delta. Trained rows of tokens
    stay as they are, as they do in `LoadedModel.use`: a new token has no other row to go from.

    Raises:
        UserError: the adapter holds tensors that no scale applies to (modules_to_save).
    """
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / ADAPTER_WEIGHTS)
    foreign = sorted(one for one in tensors if ".lora_" not in one and not one.endswith(_ROWS))
    if foreign:
        raise UserError(
            f"an adapter with whole modules can't be scaled ({foreign[0]})",
            where=str(source.name),
            expected="LoRA matrices alone",
        )
    scaled = {
        name: tensor * scale if ".lora_B" in name or ".lora_embedding_B" in name else tensor
        for name, tensor in tensors.items()
    }
    target.mkdir(parents=True, exist_ok=True)
    save_file(scaled, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(source / ADAPTER_CONFIG, target / ADAPTER_CONFIG)


def move_alias(
    store: Store,
    catalog: Catalog,
    name: str,
    adapter_id: str,
    *,
    expect: str | None,
    reason: str,
) -> None:
    """Point the alias `name` at a published adapter, if it still points at `expect`.

    Raises:
        UserError: the name can't be an alias, or is the tag of a dataset version.
        StoreError: no such adapter, or the alias was moved by someone else meanwhile.
    """
    check_alias_name(catalog, name)
    now = catalog.alias(name)
    if now is not None and catalog.manifest(now).kind == "dataset_version":
        raise UserError(
            f"'{name}' can't be an alias: it is the tag of a dataset version",
            expected="a name of its own",
        )
    target = tuned_ref(store, adapter_id).id
    catalog.move_alias(store, name, target, expect=expect, reason=reason)


def check_alias_name(catalog: Catalog, name: str) -> None:
    """Check that `name` can be an alias: of an adapter, or (a tag) of a dataset version.

    Raises:
        UserError: it is a dataset's name, reads like an id, or has other characters.
    """
    from registry.kinds import VersionMeta

    taken = {one.meta.name for one in catalog.each(VersionMeta)}
    if name in taken or name == "none" or _LIKE_AN_ID.fullmatch(name):
        raise UserError(
            f"'{name}' can't be an alias: it is a dataset's name, or reads like an id",
            expected="a name of its own",
        )
    if not _ALIAS.fullmatch(name):
        raise UserError(
            f"'{name}' can't be an alias",
            expected="a lower-case letter, then letters, digits, '.', '_' or '-' (63 at most)",
        )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return the PEFT configuration in a folder.

    Raises:
        UserError: there is none, or it isn't one.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"no {ADAPTER_CONFIG} here", where=str(folder), expected="a PEFT adapter"
        ) from None
    except (ValueError, RecursionError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"not JSON: {said}", where=str(path)) from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise UserError("no peft_type in it", where=str(path), expected="a PEFT configuration")
    return config


def weights_file(folder: Path) -> Path:
    """Return the file with an adapter's weights.

    Raises:
        UserError: there is none, or it is a pickle.
    """
    path = folder / ADAPTER_WEIGHTS
    if path.is_file():
        return path
    pickled = [name for name in _PICKLES if (folder / name).exists()]
    what = f"{pickled[0]} is a pickle, which can run code when read" if pickled else "no weights"
    raise UserError(what, where=str(folder), expected=ADAPTER_WEIGHTS, fix="save it as safetensors")


def _clean_config(config: Mapping[str, Any], base: BaseIdentity, where: Path) -> dict[str, Any]:
    """Return the configuration with canonical lists, the base's public name, and no remote code."""
    cleaned: dict[str, Any] = dict(config)
    if cleaned.get("auto_mapping"):
        raise UserError(
            "auto_mapping makes the loader run the code it names",
            where=f"{where}: auto_mapping",
            expected="null",
        )
    cleaned["base_model_name_or_path"] = base.public_name
    cleaned["revision"] = base.commit
    cleaned["inference_mode"] = True
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(cleaned.get(key), list):
            cleaned[key] = sorted(cleaned[key])  # PEFT writes sets, in the order of the process
    _refuse_private(cleaned, str(where))
    return cleaned


def _refuse_private(config: Mapping[str, Any], where: str) -> None:
    for key, text in _strings(config, ""):
        if _TOKEN.search(text):
            raise UserError(f"{key} holds an access token", where=where, fix="remove and revoke it")
        if _is_local_path(text):
            raise UserError(f"{key} is a path of this machine", where=where, fix="remove it")


def _is_local_path(text: str) -> bool:
    if "\n" in text or not 3 <= len(text) <= 1024:  # noqa: PLR2004 - '/' and '//' are tokens
        return False
    if text.startswith(("~/", "file:")) or PureWindowsPath(text).drive:
        return True
    return text.startswith("/") and "/" in text[1:]


def _strings(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _strings(child, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _strings(child, key)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
