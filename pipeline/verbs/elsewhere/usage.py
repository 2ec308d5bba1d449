"""usage: what using an adapter or a model elsewhere takes, gathered from the records.

Export and push say the same: `registry.publish.use` writes it down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.workspace.workspace import OpenWorkspace
from registry.chat.settings import ChatSettings
from registry.errors import UserError
from registry.models.adapters import is_tuned
from registry.publish.use.usage import Asked, Example, Place, Usage, UsedBase
from registry.store.kinds import GapMeta, RunMeta, WeightsMeta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.workspace.store import WorkspaceStore
    from registry.chat.chat import Chat
    from registry.lineage.adapter_facts import AdapterFacts
    from registry.models.base import BaseIdentity, BaseSpec
    from registry.publish.use.usage import GgufUsed, Kind
    from registry.store.manifest import Manifest, Meta

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_TEMPLATE = "chat_template.jinja"
_TOKENS = 64
_NEEDS = {
    "tune": "none: it was trained for this",
    "met": "none: the base does it by itself",
    "inconclusive": "none; whether the base lacks it is not settled",
    "": "none",
}


@dataclass(frozen=True)
class NamedBase:
    """A base of the spec: what the spec says of it, and what it is."""

    spec: BaseSpec
    identity: BaseIdentity


def usage_of(
    ws: WorkspaceStore,
    thing: Manifest[Meta],
    place: Place | None = None,
    *,
    gguf: GgufUsed | None = None,
) -> Usage:
    """Return what using an adapter or a model takes; of a model, as a GGUF file if there is one.

    Args:
        ws: the workspace that has it. Its spec says how the base is computed and spoken to; of a
            base that isn't in it (any more), that is left open.
        thing: the adapter or model.
        place: where its files are; by default at hand.
        gguf: the file that was made of it.

    Raises:
        UserError: its files are damaged, or its tokenizer can't be loaded.
    """
    facts = _facts(ws, thing)
    known = base_in_spec(ws, thing)
    folder = ws.store.get(thing.kind, thing.id).path
    tuned = is_tuned(thing)
    kind: Kind = "gguf" if gguf else "model" if not tuned else "changed"
    kind = "adapter" if thing.kind == "adapter" else kind
    asked = _asked(ws, facts)
    chat = _chat(folder, thing, known)
    example, refused = _example(chat, _first(asked, ws, facts))
    rank, no_vllm = _on_vllm(folder, known) if kind == "adapter" else (None, None)
    config = facts.config if facts else {}
    return Usage(
        kind=kind,
        name=name_of(thing),
        place=place or Place(),
        base=_base(ws.root, thing, facts, known, None if tuned else folder),
        example=example,
        asked=asked,
        rank=config.get("r"),
        template_file=_TEMPLATE if (folder / _TEMPLATE).is_file() else None,
        grown=tuned and bool(config.get("trainable_token_indices") or config.get("new_tokens")),
        vllm_rank=rank,
        no_vllm=no_vllm,
        gguf=gguf,
        refused=refused,
    )


def name_of(thing: Manifest[Meta]) -> str:
    """Return a name for people and servers: the base's and the beginning of the id."""
    base = (thing.of(WeightsMeta).meta.base or "model").rpartition("/")[2]
    return f"{_UNFIT.sub('-', base).strip('-.') or 'model'}-{thing.id[:8]}"


def base_in_spec(ws: WorkspaceStore, thing: Manifest[Meta]) -> NamedBase | None:
    """Return the base that a thing goes on or was made of; None where the spec has none such.

    Whoever exports needs no spec, and no base at hand: what can't be read tells nothing.
    """
    wanted, named = thing.identity.get("base"), thing.of(WeightsMeta).meta.base
    try:
        there = ws if isinstance(ws, OpenWorkspace) else OpenWorkspace.open(ws.root)
    except UserError:
        return None
    for name in sorted(there.spec.bases, key=lambda name: name != named):  # its own name first
        try:
            identity = there.models.identity(name)
        except UserError:
            continue
        if identity.digest == wanted:
            return NamedBase(there.spec.bases[name], identity)
    return None


def _facts(ws: WorkspaceStore, thing: Manifest[Meta]) -> AdapterFacts | None:
    """Return what is known of the adapter; None of a model whose adapters aren't here."""
    from registry.lineage.adapter_facts import describe, describe_merged

    if is_tuned(thing):
        return describe(ws.store, ws.catalog, thing.id)
    made = thing.identity
    ids = [made["adapter"]] if made.get("adapter") else list(made.get("adapters") or ())
    here = ids and all(ws.store.find("adapter", one) or ws.store.find("model", one) for one in ids)
    return describe_merged(ws.store, ws.catalog, thing) if here else None


def _base(
    root: Path,
    thing: Manifest[Meta],
    facts: AdapterFacts | None,
    known: NamedBase | None,
    whole: Path | None,
) -> UsedBase:
    from registry.models.classes import causal_class_of
    from registry.models.load import TORCH_DTYPES

    meta = thing.of(WeightsMeta).meta
    name = facts.base if facts else known.identity.public_name if known else meta.base
    dtype: str | None = known.identity.dtype if known else None
    if whole is not None:  # it is loaded by itself
        dtype = meta.dtype or dtype
        loader = str(causal_class_of(whole).__name__)
    else:
        loader = _loader(known, root)
    return UsedBase(
        name=name or "unknown",
        commit=facts.revision if facts else known.identity.commit if known else None,
        digest=str(thing.identity.get("base") or ""),
        loader=loader,
        dtype=TORCH_DTYPES.get(dtype or ""),
        quantize=known.spec.quantize if known and whole is None else None,
        own_code=bool(known and known.spec.trust_remote_code),
        package=_package(known, root),
    )


def _package(known: NamedBase | None, root: Path) -> str | None:
    """The package that a base's GGUF file lies in: known by its bytes."""
    from registry.models.from_gguf import gguf_file
    from registry.models.smollm2 import FILE, PACKAGE, SHA256
    from registry.store.hashing import remembered_digest

    if known is None or known.identity.source != FILE:  # as it is called in there
        return None
    file = gguf_file(known.spec.model, root, f"bases.{known.identity.name}")
    return PACKAGE if file and remembered_digest(file, root) == SHA256 else None


def _loader(known: NamedBase | None, root: Path) -> str:
    """The class of transformers that loads a base; that of most, of one that isn't in the spec."""
    if known is None:
        return "AutoModelForCausalLM"
    from registry.models.classes import causal_class
    from registry.models.load import load_config

    return str(causal_class(load_config(known.identity.name, known.spec, root)).__name__)


# ------------------------------------------------------------------------------- how it was asked


def _asked(ws: WorkspaceStore, facts: AdapterFacts | None) -> tuple[Asked, ...]:
    """Return how all was asked that the adapter was measured on, what was trained first."""
    run = _measuring(ws, facts)
    if run is None:
        return ()
    findings = {}
    if (gap := run.inputs.get("gap")) is not None:
        findings = {
            one["capability"]: one for one in ws.catalog.manifest(gap, GapMeta).meta.findings
        }
    found = [_one(name, said, findings.get(name)) for name, said in run.inputs["subjects"].items()]
    trained = {name for name, one in findings.items() if one["verdict"] == "tune"}
    return tuple(sorted(found, key=lambda one: one.name not in trained))


def _measuring(ws: WorkspaceStore, facts: AdapterFacts | None) -> RunMeta | None:
    """Return the newest run that measured the adapter; of several in a model there is none."""
    if facts is None or not (facts.closed or facts.kept):
        return None
    runs = ws.catalog.committed(RunMeta)
    of_it = [one.meta for one in runs if one.meta.inputs.get("adapter") == facts.adapter_id]
    return next((run for run in reversed(of_it) if "subjects" in run.inputs), None)


def _one(name: str, said: Mapping[str, Any], finding: Mapping[str, Any] | None) -> Asked:
    spec = said["spec"]
    prompts = spec["prompts"]
    verdict = str(finding["verdict"]) if finding else ""
    needs = _NEEDS.get(verdict, "none")
    if finding and verdict == "prompt":
        needs = (
            f"the prompt found best, {finding['best_prompt']}: with it the base alone reaches the "
            "goal, and nothing was trained for this"
        )
    return Asked(
        name=name,
        prompt=str(prompts["zero_shot"]),
        system=prompts.get("system"),
        answer=str(spec.get("answer") or spec.get("lm_eval")),
        tokens=int(spec["max_new_tokens"]),
        needs=needs,
    )


def _first(
    asked: Sequence[Asked], ws: WorkspaceStore, facts: AdapterFacts | None
) -> tuple[list[dict[str, str]], int]:
    """Return the turns of an example, and how long its answer may be."""
    from evals.tasks.prompts import fill

    if not asked:
        return [{"role": "user", "content": "YOUR INPUT"}], _TOKENS
    first = asked[0]
    run = _measuring(ws, facts)
    labels = run.inputs["subjects"][first.name]["spec"].get("labels") if run else None
    yours = _Yours(", ".join(labels) if isinstance(labels, list) else None)
    system = [{"role": "system", "content": fill(first.system, yours)}] if first.system else []
    return [*system, {"role": "user", "content": fill(first.prompt, yours)}], first.tokens


class _Yours(dict[str, str]):
    """A row of whoever uses it: every column says that it is theirs to fill."""

    def __init__(self, labels: str | None) -> None:
        super().__init__({} if labels is None else {"labels": labels})

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return f"YOUR {name.upper()}"


# ----------------------------------------------------------------------------- how it is spoken to


@dataclass(frozen=True)
class _Spoken:
    """A base that the spec doesn't have, as far as its chat goes."""

    name: str
    digest: str
    stops: tuple[int, ...]
    chat: ChatSettings


def _chat(folder: Path, thing: Manifest[Meta], known: NamedBase | None) -> Chat:
    from registry.chat.chat import Chat
    from registry.models.base import BaseSpec, stops_in
    from registry.models.quiet import quiet_libraries
    from registry.models.tokenizer import load_tokenizer

    spec = known.spec if known else BaseSpec(model=str(folder))
    with quiet_libraries():  # the tokens that the spec adds are in it
        tokenizer = load_tokenizer(folder, spec.model_copy(update={"new_tokens": ()}), folder.name)
    if known is not None:
        return Chat(tokenizer, known.identity)
    digest = str(thing.identity.get("base") or thing.id)
    return Chat(tokenizer, _Spoken("model", digest, stops_in(folder), ChatSettings()))


def _example(chat: Chat, asked: tuple[list[dict[str, str]], int]) -> tuple[Example, str | None]:
    """Return a question as it is sent; and, where the template takes none, why."""
    from registry.chat.form import answer_form
    from registry.chat.messages import joined
    from registry.chat.template import Rendered, Template

    turns, tokens = asked
    settings = chat.settings
    sent = joined(turns) if settings.system == "join" else turns
    messages = tuple({"role": str(m["role"]), "content": str(m["content"])} for m in sent)
    plain = Example(
        messages,
        thinking=None if settings.thinking == "auto" else settings.thinking == "on",
        date=settings.date,
        tools_in_text=settings.tools == "text",
        tokens=tokens,
    )
    try:
        context, end = chat.context(turns), answer_form(chat).end
        rendered = Template(chat.tokenizer, settings)
        own = chat.tokenizer.chat_template and rendered.render(messages, None, generate=True)
    except UserError as error:
        why = f"its chat template takes no such question: {error.what}"
        return replace(plain, ends=_ends(chat, "")), why
    ends = _ends(chat, end)
    stop = None if end in [text for _, text in ends] else end or "\n\n"
    text = None if own and str(own) == str(context) else str(context)
    special = not isinstance(context, Rendered)
    return replace(plain, text=text, special=special, ends=ends, stop=stop), None


def _ends(chat: Chat, end: str) -> tuple[tuple[int, str], ...]:
    """Return id and text of each token that ends an answer."""
    ids = set(chat.stops)
    if end in chat.tokenizer.get_added_vocab():
        ids.add(int(chat.tokenizer.get_added_vocab()[end]))
    return tuple(
        (one, str(chat.tokenizer.decode([one], skip_special_tokens=False))) for one in sorted(ids)
    )


def _on_vllm(folder: Path, known: NamedBase | None) -> tuple[int | None, str | None]:
    """Return the largest rank that vLLM is told, or why it can't compute this adapter."""
    from evals.engine.backend import check_vllm_base, vllm_rank

    try:
        if known is not None:
            check_vllm_base(known.spec, known.identity)
        return vllm_rank([folder]), None
    except UserError as error:
        return None, error.what
