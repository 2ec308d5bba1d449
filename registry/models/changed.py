"""Changed tensors: what training a base's own weights made of it, without what it left as it was.

They lie in `changed.safetensors`, by the names of the base's parameters and in its dtype, and are
put on the base like an adapter: the objects of kind `model` that hold them go through the same
gates, merges and pushes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.store.filenames import CHANGED_CONFIG, CHANGED_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from registry.models.base import BaseIdentity
    from registry.store.objects import ObjectRef, Parent, Store


def write_changed(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors by parameter name; equal ones give equal bytes. `facts` say how they came."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / CHANGED_WEIGHTS, metadata={"format": "pt"})
    _write_config(folder, facts)


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    text = json.dumps(dict(config), indent=2, sort_keys=True) + "\n"
    (folder / CHANGED_CONFIG).write_text(text, encoding="utf-8")


def read_changed(folder: Path) -> dict[str, Tensor]:
    """Return the changed tensors of a folder, by parameter name.

    Raises:
        UserError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / CHANGED_WEIGHTS)
    except (SafetensorError, OSError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{CHANGED_WEIGHTS} can't be read: {said}",
            folder.name[:12],
            fix="`gapmend fsck` says whether its files are damaged",
        ) from error


def put_on(model: PreTrainedModel, folder: Path, scale: float = 1.0) -> dict[str, Tensor]:
    """Write a folder's tensors over a base's; returns what was there, by name.

    Args:
        model: the base.
        folder: with the changed tensors.
        scale: how far to go from the base's values to the changed ones, 1 is all the way.

    Raises:
        UserError: a tensor that the base hasn't, or of another shape; nothing is written.
    """
    own = dict(model.named_parameters())
    changed = read_changed(folder)
    for name, tensor in changed.items():
        if name not in own or own[name].shape != tensor.shape:
            raise ModelError(f"{name} has no place in this base", folder.name[:12])
    before: dict[str, Tensor] = {}
    for name, tensor in changed.items():
        parameter = own[name]
        before[name] = parameter.data
        value = tensor.to(parameter.device)
        if scale != 1.0:
            value = _between(parameter.data, value, scale)
        parameter.data = value.to(parameter.dtype)
    return before


def put_back(model: PreTrainedModel, before: Mapping[str, Tensor]) -> None:
    """Give a base back what `put_on` took."""
    own = dict(model.named_parameters())
    for name, tensor in before.items():
        own[name].data = tensor


def write_scaled_changed(source: Path, model: PreTrainedModel, scale: float, target: Path) -> None:
    """Write the tensors of `source` to `target`, only `scale` of the way from the base's."""
    own = dict(model.named_parameters())
    scaled = {
        name: _between(own[name].data, tensor.to(own[name].device), scale).to(tensor.dtype)
        for name, tensor in read_changed(source).items()
    }
    write_changed(target, scaled, read_changed_config(source))


def changed_apart(a: Path, b: Path) -> dict[str, float]:
    """Return name -> |b - a| / |a| of the tensors in two folders, the furthest apart first."""
    first, second = read_changed(a), read_changed(b)
    found = {
        name: float((second[name].double() - first[name].double()).norm() / first[name].norm())
        for name in first.keys() & second.keys()
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _between(base: Tensor, changed: Tensor, scale: float) -> Tensor:
    return base.float() + scale * (changed.float() - base.float())


def read_changed_config(folder: Path) -> dict[str, Any]:
    """Return what `changed.json` says: which base, and how they were trained."""
    config: dict[str, Any] = json.loads((folder / CHANGED_CONFIG).read_text(encoding="utf-8"))
    return config


def publish_changed(
    store: Store,
    folder: Path,
    *,
    base: BaseIdentity,
    tokenizer: PreTrainedTokenizerBase,
    meta: Mapping[str, Any],
    parents: Sequence[Parent],
) -> ObjectRef:
    """Put the changed tensors in `folder` into the store as a `model`; the caller commits it."""
    from registry.models.safetensors import canonical_safetensors
    from registry.models.tokenizer import save_tokenizer
    from registry.store.hashing import file_digest
    from registry.store.kinds import ModelMeta

    with store.draft() as draft:
        (draft / CHANGED_WEIGHTS).write_bytes(canonical_safetensors(folder / CHANGED_WEIGHTS))
        config = {"base_model_name_or_path": base.public_name, "revision": base.commit}
        _write_config(draft, read_changed_config(folder) | config)
        save_tokenizer(tokenizer, draft)
        identity = {
            "base": base.digest,
            "config": file_digest(draft / CHANGED_CONFIG),
            "changed": file_digest(draft / CHANGED_WEIGHTS),
        }
        size = (draft / CHANGED_WEIGHTS).stat().st_size
        facts = {"base": base.name, "peft_type": None, "rank": None, "bytes": size}
        said = ModelMeta.model_validate({**facts, **meta})
        return store.put("model", draft, identity=identity, parents=parents, meta=said)
