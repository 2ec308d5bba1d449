"""The set-up of a loaded model for training, undone after it.

Seeds, the dtype of the frozen weights, dropout, and the attention function; and the proof, on the
model at hand, that packed rows don't see one another.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.training.losses.attention import NAME, NotPackableError, make_layout, packed_attention
from pipeline.training.losses.loss import takes_places, why_not_shared
from registry.errors import ModelError
from registry.models.parts import length_limits, text_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from pipeline.spec.train import ComputeDtype
    from registry.models.load import LoadedModel

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Shapes of the two packed calls are equal, so a row that sees nothing else is equal to the bit.
# The little that is allowed is for experts, whose groups change with their neighbours.
_LEAK = 1e-5
_BEHIND = 7  # tokens of a row that another one is put behind
_BEYOND = 8  # tokens above a limit
_TAIL = 16  # tokens of a row that are compared, the last
_SAME = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators; give back their states afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 transformers draws from the global one
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def computed_in(loaded: LoadedModel, dtype: ComputeDtype | None) -> Iterator[None]:
    """Compute with the frozen weights in another dtype; the originals are kept and put back.

    Both are in memory meanwhile. Trained weights are added later and stay fp32.

    Raises:
        UserError: the base is quantised, so its weights have no dtype to change.
    """
    wanted = DTYPES[dtype] if dtype else loaded.dtype
    if wanted == loaded.dtype:
        yield
        return
    if getattr(loaded.model, "quantization_method", None) is not None:
        raise ModelError(
            f"a quantised base can't be computed in {dtype}",
            where="train.dtype",
            expected="null; the base's dtype is what it is computed in",
        )
    originals = {p: p.data for p in loaded.model.parameters() if p.is_floating_point()}
    try:
        for parameter, data in originals.items():
            parameter.data = data.to(wanted)
        yield
    finally:
        for parameter, data in originals.items():
            parameter.data = data


@contextmanager
def without_dropout(model: torch.nn.Module, *, wanted: bool) -> Iterator[None]:
    """Switch off all dropout of a model for a while, where that is `wanted`.

    It stays in training mode: activations are recomputed in that mode alone.
    """
    before: list[tuple[torch.nn.Module, str, float]] = []
    for module in model.modules() if wanted else ():
        # As layers have it that call a function, beside those that are dropout modules.
        shares = [name for name in vars(module) if "drop" in name]
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):  # noqa: SLF001  all of them
            shares.append("p")
        before += [
            (module, name, share)
            for name in shares
            if isinstance(share := getattr(module, name), float)
        ]
    try:
        for module, name, _ in before:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, share in before:
            setattr(module, name, share)


@contextmanager
def packed(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend packed rows one by one; its own attention is back afterwards.

    Raises:
        NotPackableError: the model's attention can't be replaced.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    before = model.config._attn_implementation  # noqa: SLF001  there is no public reader
    if not model._can_set_attn_implementation():  # noqa: SLF001
        raise NotPackableError(f"{type(model).__name__} does not take another attention function")
    model.set_attn_implementation(NAME)
    # cuDNN makes a plan for every new shape, and packed rows have new ones in every batch.
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled=cudnn)
        model.set_attn_implementation(before)


def why_not_packed(loaded: LoadedModel, longest: int | None = None) -> str | None:
    """Try packing on this model; None when no row sees another, else what went wrong.

    Compared are a row's logits by the model's own attention, packed alone, behind a row, and
    behind another row. State-space and hybrid layers, which carry a state from row to row, are
    found this way, whatever they are called; and with rows longer than every window and chunk of
    the config, attention that is limited by the mask alone.

    Args:
        loaded: the base.
        longest: tokens of the longest row to come: limits that it doesn't reach are not tried.
    """
    try:
        with torch.no_grad():
            return _differs(loaded, _BEHIND) or (
                _differs(loaded, long) if (long := _beyond_limits(loaded, longest)) else None
            )
    except (NotPackableError, TypeError, ValueError) as error:
        return str(error)


def _beyond_limits(loaded: LoadedModel, longest: int | None) -> int | None:
    """Return a length above every limit within a row's reach, None where there is none."""
    reach = min(longest or loaded.context, loaded.context)
    limits = [one for _, one in length_limits(text_config(loaded.model)) if one < reach]
    return min(max(limits) + _BEYOND, reach) if limits else None


def _differs(loaded: LoadedModel, length: int) -> str | None:
    """How packing with a row of so many tokens fails; None where it doesn't."""
    model, device = loaded.model, loaded.device
    vocabulary = model.get_input_embeddings().num_embeddings
    first, other, row = (
        torch.arange(start, start + count, device=device).remainder(vocabulary)[None]
        for start, count in ((3, length), (31, length), (11, 5))
    )
    own = _logits(model, [row], pack=False)
    ends = _logits(model, [first], pack=False)
    with packed(model):
        alone = _logits(model, [row], pack=True)
        ends_packed = _logits(model, [first, row], pack=True)
        behind = ends_packed[-row.shape[1] :]
        behind_other = _logits(model, [other, row], pack=True)[-row.shape[1] :]
    scale = float(own.abs().max()) or 1.0
    if float((behind - behind_other).abs().max()) > _LEAK * scale:
        return "a packed row changes with the row before it"
    same = _SAME[next(p.dtype for p in model.parameters() if p.dtype in _SAME)]
    pairs = ((own, alone), (own, behind), (ends, ends_packed[: len(ends)]))
    for one, packed_logits in pairs:
        if not float((one - packed_logits).abs().max()) <= same * scale:
            longer = "" if length == _BEHIND else f" for rows of {length} tokens"
            return f"packed rows give other logits than the model's own attention{longer}"
    return None


def shares_prompts(loaded: LoadedModel) -> bool:
    """Whether answers to one prompt can share it on this model, which packs cleanly."""
    with packed(loaded.model):
        dtype = next(p.dtype for p in loaded.model.parameters() if p.dtype in _SAME)
        return why_not_shared(loaded.model, same=_SAME[dtype]) is None


def _logits(model: PreTrainedModel, rows: list[torch.Tensor], *, pack: bool) -> torch.Tensor:
    """Logits of each row's last tokens, row after row."""
    lengths = [row.shape[1] for row in rows]
    device = rows[0].device
    ends = list(accumulate(lengths))
    places = torch.cat(
        [torch.arange(end - min(n, _TAIL), end) for end, n in zip(ends, lengths, strict=True)]
    ).to(device)
    given: dict[str, Any] = {"packed_layout": make_layout(lengths, device)} if pack else {}
    selects = takes_places(model)
    if selects:  # else they would be those of all tokens: gigabytes, of a long row
        given["logits_to_keep"] = places
    output = model(
        input_ids=torch.cat(rows, dim=1),
        position_ids=torch.cat([torch.arange(n, device=device) for n in lengths])[None],
        attention_mask=None,
        use_cache=False,
        **given,
    )
    logits = output.logits[0]
    return (logits if selects else logits[places]).float()


def packing(model: PreTrainedModel, *, wanted: bool) -> ExitStack:
    """`packed(model)` where wanted, else nothing."""
    stack = ExitStack()
    if wanted:
        stack.enter_context(packed(model))
    return stack
