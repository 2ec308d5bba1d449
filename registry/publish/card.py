"""The card (README.md) of what is pushed, made from the catalog alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from registry.publish.markdown import as_text, inline
from registry.publish.use.page import use_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from huggingface_hub import EvalResult

    from registry.lineage.adapter_facts import AdapterFacts, CapabilityFact, GuardFact
    from registry.publish.use.usage import Usage

_LIBRARY = "gapmend"
_BY = "This card was made by gapmend from its records: figures and licences as they were measured."
_WITNESS = "A witness is a guard of which no row was trained on: it tells of what nobody replayed."
_METRICS = {"f1": "f1", "rouge": "rouge", "perplexity": "perplexity"}  # any other is accuracy


@dataclass(frozen=True)
class MeasuredBy:
    """How a capability or guard was measured.

    Attributes:
        dataset: the dataset's name in the spec, or the lm-eval task.
        version: the version's id, where it is a dataset.
        answer: how it was scored: choice, exact and so on.
    """

    dataset: str
    version: str | None
    answer: str


@dataclass(frozen=True)
class Publication:
    """What the catalog doesn't know: where it goes, and under which licence.

    Attributes:
        repo_id: owner/name.
        tag: the tag that names what is pushed: the adapter's or model's id.
        license: of the whole, by the Hub's name.
        asked: capability or guard -> how it was measured.
        datasets: dataset name -> Hub id, for those that were pushed.
        usage: how to use it.
    """

    repo_id: str
    tag: str
    license: str
    asked: Mapping[str, MeasuredBy]
    datasets: Mapping[str, str]
    usage: Usage


def adapter_card(facts: AdapterFacts, to: Publication) -> str:
    """Return the card of an adapter."""
    rank, alpha = facts.config.get("r"), facts.config.get("lora_alpha")
    rows = sum(one.rows for one in facts.taught)
    taught = f"trained on {rows:,} rows that were chosen by what the base lacks"
    head = _head(facts, to, relation="adapter", library="peft", tags=("lora", _LIBRARY))
    return _card(
        head,
        f"A LoRA adapter (rank {rank}, alpha {alpha}) for {_base(facts)}, "
        f"{taught if rows else 'trained elsewhere'}.",
        facts,
        to,
    )


def model_card(facts: AdapterFacts, to: Publication, merge: Mapping[str, Any]) -> str:
    """Return the card of a merged model; `merge` is what the manifest says of the merge."""
    head = _head(facts, to, relation="merge", library="transformers", tags=("merge", _LIBRARY))
    worst = max(float(merge["merged"]), float(merge["reloaded"]))
    ids = [f"`{one[:12]}`" for one in merge.get("adapter_ids") or (facts.adapter_id,)]
    several = f"s {', '.join(ids)} ({merge.get('method')})" if len(ids) > 1 else f" {ids[0]}"
    return _card(
        head,
        f"{_base(facts)} with the LoRA adapter{several} merged into its weights "
        f"({merge['dtype']}). Its logits differ from what they should be by {worst:.1e} of "
        f"the largest, in a new process too; {float(merge['bound']):.0e} is allowed.",
        facts,
        to,
    )


def changed_card(facts: AdapterFacts, to: Publication) -> str:
    """Return the card of a model that holds the tensors alone that training changed."""
    head = _head(
        facts, to, relation="finetune", library="transformers", tags=("finetune", _LIBRARY)
    )
    rows = sum(one.rows for one in facts.taught)
    return _card(
        head,
        f"What training changed in {_base(facts)} ({inline(str(facts.config.get('method')))}), "
        f"tensor by tensor: trained on {rows:,} rows that were chosen by what the base lacks. "
        "The rest is the base's.",
        facts,
        to,
    )


def _card(head: str, what: str, facts: AdapterFacts, to: Publication) -> str:
    parts = [
        f"---\n{head}---\n\n# {to.repo_id.partition('/')[2]}\n\n{what}",
        use_section(to.usage),
        _gaps([one for one in facts.closed if one.split == facts.split], facts.interval),
        _decided(facts),
        _losses([one for one in facts.kept if one.split == facts.split]),
        _training(facts),
        f"## Where it came from\n\nAdapter `{facts.adapter_id}`, base `{facts.base_digest}`. {_BY}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(
    facts: AdapterFacts, to: Publication, *, relation: str, library: str, tags: Sequence[str]
) -> str:
    from huggingface_hub import ModelCardData

    on_hub = "/" in facts.base
    results = list(_results(facts, to))
    data = ModelCardData(
        base_model=facts.base if on_hub else None,
        library_name=library,
        license=to.license,
        tags=list(tags),
        datasets=sorted({to.datasets[t.dataset] for t in facts.taught if t.dataset in to.datasets})
        or None,
        pipeline_tag="text-generation",
        model_name=to.repo_id if results else None,
        eval_results=results or None,
    )
    if on_hub:
        data["base_model_relation"] = relation
    return str(data.to_yaml()) + "\n"


def _results(facts: AdapterFacts, to: Publication) -> Iterable[EvalResult]:
    for one in facts.closed:
        if one.split == facts.split:
            bounds = {"low": round(one.low, 4), "high": round(one.high, 4), "goal": one.goal}
            yield _result(one.capability, one, one.score, to, {**bounds, "before": one.before})
    for kept in facts.kept:
        if kept.split == facts.split:
            bound = {"difference": kept.difference, "lower_bound": round(kept.difference_low, 4)}
            yield _result(kept.guard, kept, kept.after, to, {**bound, "before": kept.before})


def _result(
    name: str,
    one: CapabilityFact | GuardFact,
    value: float,
    to: Publication,
    more: Mapping[str, float],
) -> EvalResult:
    from huggingface_hub import EvalResult

    asked = to.asked.get(name)
    hub = to.datasets.get(asked.dataset) if asked else None
    return EvalResult(
        task_type="text-generation",
        task_name=name,
        dataset_type=hub or (asked.dataset if asked else name),
        dataset_name=asked.dataset if asked else name,
        dataset_split=one.split,
        dataset_args={"version": asked.version} if asked and asked.version else None,
        metric_type=_METRICS.get(asked.answer if asked else "", "accuracy"),
        metric_value=value,
        metric_args={"items": one.items, "verdict": one.verdict, **more},
    )


def _gaps(closed: Sequence[CapabilityFact], interval: str) -> str:
    if not closed:
        return ""
    lines = [
        f"| {as_text(one.capability)} | {one.goal:.2f} | {one.before:.3f} | {one.score:.3f} "
        f"| {one.low:.3f} to {one.high:.3f} | {one.items:,} | {one.verdict} |"
        for one in closed
    ]
    return "\n".join(
        [
            f"## What it can do ({closed[0].split})",
            "",
            f"| capability | goal | base | with it | {interval} interval | items | verdict |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _decided(facts: AdapterFacts) -> str:
    """Say how often test was looked at, and which goals were moved after that."""
    decided = facts.decision
    if decided is None:
        return ""
    word = "let through" if decided.promoted else "refused"
    lines = [f"## How it was decided\n\nIt was {word} at look {decided.looks} at these test items."]
    if decided.looks > 1:
        lines.append("Each look is judged at half of the error of the one before.")
    parts = [" ".join(lines)]
    for title, said in (
        ("Goals that were moved after test had been looked at", decided.moved),
        ("Refused before on these test items", decided.refused),
    ):
        if said:
            parts.append("\n".join([f"{title}:", "", *(f"- {as_text(one)}" for one in said)]))
    return "\n\n".join(parts)


def _losses(kept: Sequence[GuardFact]) -> str:
    if not kept:
        return "## What it lost\n\nNot measured."
    lines = [
        f"| {as_text(one.guard)}{' (witness)' * one.witness} | {one.before:.3f} "
        f"| {one.after:.3f} | {one.lost} | {one.gained} "
        f"| {one.difference_low:+.3f} | {-one.max_drop:+.3f} | {one.verdict} |"
        for one in kept
    ]
    return "\n".join(
        [
            f"## What it lost ({kept[0].split})",
            "",
            "Item by item, against the base:",
            "",
            "| | base | with it | lost | gained | at worst | allowed | verdict |",
            "|---|---|---|---|---|---|---|---|",
            *lines,
            *(["", _WITNESS] if any(one.witness for one in kept) else []),
        ]
    )


def _training(facts: AdapterFacts) -> str:
    if not facts.taught:
        return "## What it was trained on\n\nNot known: it was trained elsewhere."
    lines = [
        f"| {as_text(one.dataset)} | `{one.version_id[:12]}` "
        f"| {as_text(one.license or 'unknown')} "
        f"| {as_text(one.reason)} ({as_text(one.capability)}) | {one.rows:,} |"
        for one in facts.taught
    ]
    meta = facts.meta
    how = [f"{meta[k]:,} {k}" for k in ("steps", "tokens") if isinstance(meta.get(k), int)]
    return "\n".join(
        [
            "## What it was trained on",
            "",
            "| dataset | version | licence | chosen for | rows |",
            "|---|---|---|---|---|",
            *lines,
            "",
            f"{', '.join(how)}." if how else "",
        ]
    ).rstrip()


def _base(facts: AdapterFacts) -> str:
    if "/" in facts.base:
        return f"[{as_text(facts.base)}](https://huggingface.co/{quote(facts.base)})"
    return f"the base `{inline(facts.base)}`, which is not on the Hub"
