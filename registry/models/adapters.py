"""Adapters in the store: published clean, found by id, named by aliases.

A published adapter is a PEFT folder (configuration, weights, tokenizer, chat template) without a
local path, a token or a pickle in it. Its bytes are canonical, so that the same weights with the
same configuration on the same base have the same id wherever they come from.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from registry.catalog.aliases import check_alias_name
from registry.errors import ModelError, StoreRequestError
from registry.models.files import holds_changed, read_adapter_config, weights_file
from registry.models.safetensors import canonical_safetensors
from registry.models.tokenizer import refuse_private, save_tokenizer, write_json
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from registry.store.hashing import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from registry.catalog.catalog import Catalog
    from registry.models.load import BaseIdentity
    from registry.store.manifest import Manifest, Meta
    from registry.store.objects import ObjectRef, Parent, Store


_ROWS = ".token_adapter.trainable_tokens_delta"


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
    from registry.store.kinds import AdapterMeta

    config = read_adapter_config(folder)
    with store.draft() as draft:
        weights = canonical_safetensors(weights_file(folder))
        (draft / ADAPTER_WEIGHTS).write_bytes(weights)
        write_json(draft / ADAPTER_CONFIG, _clean_config(config, base, folder / ADAPTER_CONFIG))
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
        StoreError: as `tuned_ref`.
    """
    return tuned_ref(store, adapter_id).path


def tuned_ref(store: Store, tuned_id: str) -> ObjectRef:
    """Return what goes on a base: an adapter, or a model that holds changed tensors alone.

    Raises:
        StoreError: neither has this id, or its files aren't what its manifest says.
    """
    model = store.find("model", tuned_id)
    if model is not None and holds_changed(model.path):
        return store.get("model", tuned_id)
    return store.get("adapter", tuned_id)


def is_tuned(manifest: Manifest[Meta]) -> bool:
    """Whether it goes on a base: an adapter, or a model that holds changed tensors alone."""
    is_changed = manifest.kind == "model" and "changed" in manifest.identity
    return is_changed or manifest.kind == "adapter"


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
        raise ModelError(
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
        raise StoreRequestError(
            f"'{name}' can't be an alias: it is the tag of a dataset version",
            expected="a name of its own",
        )
    target = tuned_ref(store, adapter_id).id
    catalog.move_alias(store, name, target, expect=expect, reason=reason)


def _clean_config(config: Mapping[str, Any], base: BaseIdentity, where: Path) -> dict[str, Any]:
    """Return the configuration with canonical lists, the base's public name, and no remote code."""
    cleaned: dict[str, Any] = dict(config)
    if cleaned.get("auto_mapping"):
        raise ModelError(
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
    refuse_private(cleaned, str(where))
    return cleaned
