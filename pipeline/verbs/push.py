"""push: an adapter, a merged model or a dataset to the Hugging Face Hub, with its card.

Nothing leaves before everything was looked at: allowed files alone, no secret, no path of this
machine, a licence that holds for the whole, a repository that is as private as was asked for.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.workspace.amounts import BYTES
from pipeline.workspace.store import CHAMPION, refuse_removed
from registry.errors import StoreRequestError, UserError
from registry.models.adapters import is_tuned
from registry.publish.parcel import SIGNATURE
from registry.store.kinds import MergeMeta, PushMeta, RunMeta, VersionMeta
from registry.store.locks import rows_stay
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.catalog.lists import DatasetName
    from registry.lineage.adapter_facts import AdapterFacts
    from registry.publish.card import MeasuredBy, Publication
    from registry.publish.parcel import Kind, Parcel
    from registry.publish.push import Delivery
    from registry.store.manifest import Manifest, Meta

_KINDS = ("adapter", "model", "dataset_version")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOO_COMMON = frozenset({"/", "/root", "/home", "/tmp"})  # noqa: S108 - names, not used as folders


@dataclass(frozen=True)
class PushReport:
    """What was pushed, or would be (`dry`).

    Attributes:
        files: path, bytes and SHA-256 of each.
        card: the rendered README.md.
        commit: on the Hub; None in a dry run.
        already: everything was there before.
        request: the number of the pull request that waits, if main was not to be moved.
        push_id: of the record.
    """

    object_id: str
    kind: str
    repo: str
    private: bool
    dry: bool
    files: list[dict[str, Any]]
    card: str
    commit: str | None = None
    url: str | None = None
    already: bool = False
    request: int | None = None
    push_id: str | None = None


def push(
    ws: OpenWorkspace,
    ui: Ui,
    thing: str | None,
    *,
    repo: str | None = None,
    private: bool | None = None,
    as_request: bool = False,
    dry: bool = False,
) -> PushReport:
    """Push what an id, a prefix, an alias or a dataset's name names; by default the champion.

    Args:
        ws: the workspace.
        ui: where progress is shown.
        thing: what.
        repo: owner/name; `hub.repo` of the spec by default.
        private: what the repository must be; `hub.private` of the spec, else private.
        as_request: leave a pull request open instead of moving main.
        dry: show what would be pushed, and ask the Hub nothing.

    Raises:
        UserError: nothing of that name, no repository, no licence, a secret, or the Hub refuses.
        GateRefusedError: the Hub does not hold what was sent.
    """
    from registry.hub.repository import Repository
    from registry.publish.push import deliver
    from registry.publish.secrets import refuse_secrets, scan_files

    asked = thing or CHAMPION
    manifest = thing_of(ws, asked)
    target = repo or (ws.spec.hub.repo if ws.spec.hub else None)
    if target is None:
        raise UserError("no repository is named", fix="name it with --repo, or as hub.repo")
    if not _REPO.fullmatch(target) or ".." in target:
        raise UserError(f"'{target}' is no repository", "--repo", "owner/name")
    if private is None:
        private = ws.spec.hub.private if ws.spec.hub else True
    with rows_stay(ws.state, ws.catalog.wait_s), ws.store.draft() as scratch:
        parcel = _parcel(ws, manifest, asked, target, scratch)
        refuse_secrets(scan_files([(f.path, f.content) for f in parcel.files], _private(ws)))
        report = PushReport(
            object_id=parcel.object_id,
            kind=parcel.kind,
            repo=target,
            private=private,
            dry=dry,
            files=parcel.listed(),
            card=parcel.card,
        )
        if dry:
            return report
        repository = Repository(target, "dataset" if parcel.kind == "dataset_version" else "model")
        size = sum(file["bytes"] for file in report.files)
        label = f"push · {parcel.object_id[:8]} to {target}"
        with ui.progress(label, size, BYTES) as bar:
            bar.note(f"{len(report.files):,} files")
            done = deliver(
                *(repository, parcel),
                private=private,
                as_request=as_request,
                advance=bar.advance,
            )
        url = repository.url(done.commit)
        push_id = _record(ws, manifest, report, done, url)
    return PushReport(
        **{
            **asdict(report),
            "commit": done.commit,
            "url": url,
            "already": done.already,
            "request": done.request,
            "push_id": push_id,
        }
    )


def thing_of(ws: OpenWorkspace, name: str) -> Manifest[Meta]:
    """Return the manifest of the adapter, merged model or dataset version that is named.

    A dataset's name means its newest version.

    Raises:
        UserError: nothing has that name or id, or it is something else.
    """
    target = ws.catalog.alias(name)
    if target is None and (ids := [one.version_id for one in _named(ws) if one.name == name]):
        return ws.catalog.manifest(ids[-1])
    if target is None and name == CHAMPION:
        raise StoreRequestError("no adapter is champion yet", fix="promote one: gapmend promote")
    manifest = ws.catalog.manifest(target or name)
    refuse_removed(ws, manifest)
    if manifest.kind not in _KINDS:
        raise StoreRequestError(
            f"'{name}' is a {manifest.kind}", expected="an adapter, a merged model or a dataset"
        )
    return manifest


def _named(ws: OpenWorkspace) -> tuple[DatasetName, ...]:
    from registry.catalog.lists import dataset_names

    return dataset_names(ws.catalog)


def _parcel(
    ws: OpenWorkspace, manifest: Manifest[Meta], asked: str, repo: str, scratch: Path
) -> Parcel:
    from registry.lineage.adapter_facts import describe, describe_merged
    from registry.publish.card import adapter_card, changed_card, model_card
    from registry.publish.parcel import allowed_files, pack

    kind, folder = cast("Kind", manifest.kind), ws.store.get(manifest.kind, manifest.id).path
    if kind == "dataset_version":
        return _dataset_parcel(ws, manifest.of(VersionMeta), asked, repo, scratch)
    if is_tuned(manifest):
        facts = describe(ws.store, ws.catalog, manifest.id)
    else:
        facts = describe_merged(ws.store, ws.catalog, manifest)
    to = _publication(ws, facts, repo, manifest)
    if kind == "adapter":
        card = adapter_card(facts, to)
    elif is_tuned(manifest):
        card = changed_card(facts, to)
    else:
        card = model_card(facts, to, _merge_of(ws, manifest.id))
    files = allowed_files(folder, kind)
    return pack(manifest, files, card, facts.base, to.license, _signature(ws, manifest))


def _signature(ws: OpenWorkspace, manifest: Manifest[Meta]) -> Path | None:
    """The newest signature of what is pushed, if it was signed."""
    found = ws.catalog.find("signature", thing=manifest.id)
    return ws.store.get("signature", found.id).path / SIGNATURE if found else None


def _dataset_parcel(
    ws: OpenWorkspace, manifest: Manifest[VersionMeta], asked: str, repo: str, scratch: Path
) -> Parcel:
    """Return the parcel of a version, which goes by the name that it was asked for by.

    Asked for by its id, it goes by a name that the spec has, else by its first.
    """
    from registry.publish.dataset_card import dataset_card
    from registry.publish.licenses import strictest
    from registry.publish.parcel import pack
    from registry.publish.rows import write_rows

    names = [one.name for one in _named(ws) if one.version_id == manifest.id]
    spec = [one for one in names if one in ws.spec.datasets]
    name = asked if asked in names else [*spec, *names][0]
    if manifest.redacted:  # its id is of all rows, and nobody could take it in as that
        raise StoreRequestError(
            f"rows were erased from version {manifest.id[:12]} of '{name}'",
            expected="a version that was made since",
            fix="make one: gapmend ingest",
        )
    license_ = strictest({f"dataset {name}": manifest.meta.license})
    version = ws.store.get("dataset_version", manifest.id)
    files = write_rows(ws.store, version, name, scratch)
    card = dataset_card(manifest, name, repo, license_, sorted(files))
    return pack(manifest, files, card, None, license_)


def _merge_of(ws: OpenWorkspace, model_id: str) -> Mapping[str, Any]:
    if merge := ws.catalog.find(MergeMeta, model=model_id):
        return merge.meta.as_json()
    raise StoreRequestError(
        f"model {model_id[:12]} has no merge on record", expected="a model that gapmend merged"
    )


def _publication(
    ws: OpenWorkspace, facts: AdapterFacts, repo: str, thing: Manifest[Meta]
) -> Publication:
    from pipeline.verbs.elsewhere.usage import usage_of
    from registry.publish.card import Publication
    from registry.publish.use.usage import Place

    base = next(
        (n for n in ws.spec.bases if ws.models.identity(n).digest == facts.base_digest), None
    )
    return Publication(
        repo_id=repo,
        tag=thing.id,
        license=_license(ws, facts, base),
        asked=_asked(ws, facts),
        datasets=_pushed_datasets(ws, facts),
        usage=usage_of(ws, thing, Place(repo, thing.id)),
    )


def _license(ws: OpenWorkspace, facts: AdapterFacts, base: str | None) -> str:
    """The licence of the whole: what the spec settles on, else the strictest of base and rows."""
    from registry.models.license import license_of_base
    from registry.publish.licenses import strictest

    if ws.spec.hub is not None and ws.spec.hub.license is not None:
        return ws.spec.hub.license
    given = license_of_base(base, ws.spec.bases[base], ws.root) if base else None
    made_of = {f"base {base or facts.base}": given}
    made_of |= {f"adapter {one[:12]}": said for one, said in facts.imported.items()}
    for one in facts.taught:
        made_of[f"dataset {one.dataset} ({one.version_id[:8]})"] = one.license
        for name in one.dataset.split(", "):  # of the same rows, several may have been in the pool
            if (now := ws.spec.datasets.get(name)) is not None and now.license:
                made_of[f"dataset {name}"] = now.license  # as it is known to be today
    return strictest(made_of)


def _asked(ws: OpenWorkspace, facts: AdapterFacts) -> dict[str, MeasuredBy]:
    from pipeline.spec.subjects import subjects
    from registry.publish.card import MeasuredBy

    measured_on = _measured_on(ws, facts)
    measured = {one.capability for one in facts.closed} | {one.guard for one in facts.kept}
    found = {}
    for what in subjects(ws.spec):
        if what.name in measured:
            data = what.spec.data
            version = measured_on.get(what.name)
            task = data or str(getattr(what.spec, "lm_eval", ""))
            answer = what.spec.answer or "lm-eval"
            found[what.name] = MeasuredBy(task, version, answer)
    return dict(sorted(found.items(), key=lambda pair: pair[0] not in _tuned(facts)))


def _measured_on(ws: OpenWorkspace, facts: AdapterFacts) -> dict[str, str]:
    """Capability or guard -> the dataset version that its figures rest on, as its runs say."""
    stage = "promote" if facts.split == "test" else "forget"
    for run in reversed(ws.catalog.committed(RunMeta, stage=stage)):
        meta = run.meta
        if meta.inputs.get("adapter") == facts.adapter_id:
            described = meta.inputs["subjects"].items()
            return {n: d["dataset_version"] for n, d in described if d["dataset_version"]}
    return {}


def _tuned(facts: AdapterFacts) -> set[str]:
    return {one.capability for one in facts.closed}


def _pushed_datasets(ws: OpenWorkspace, facts: AdapterFacts) -> dict[str, str]:
    """Dataset name -> Hub id, where the very version that it was trained on was pushed."""
    taught = {one.version_id: one.dataset for one in facts.taught}
    found = ws.catalog.query("SELECT object_id, repo FROM pushes ORDER BY created_at").rows
    return {taught[version]: repo for version, repo in found if version in taught}


def _private(ws: OpenWorkspace) -> list[str]:
    """Texts that must not leave: this machine's folders, and the token if there is one."""
    from huggingface_hub import get_token

    token = get_token()
    home = str(Path.home())
    return [text for text in (str(ws.root), home, token) if text and text not in _TOO_COMMON]


def _record(
    ws: OpenWorkspace, manifest: Manifest[Meta], report: PushReport, done: Delivery, url: str
) -> str:
    adapter_id = manifest.id if is_tuned(manifest) else getattr(manifest.meta, "adapter_id", None)
    ref = ws.store.put(
        "push",
        None,
        identity={"object": manifest.id, "repo": report.repo, "commit": done.commit},
        parents=[Parent(manifest.id, report.kind)],
        meta=PushMeta(
            object_id=manifest.id,
            kind=report.kind,
            adapter_id=adapter_id,
            repo=report.repo,
            revision=done.commit,
            private=report.private,
            request=done.request,
            url=url,
            files={one["path"]: one["sha256"] for one in report.files},
        ),
    )
    ws.catalog.commit([ref])
    return ref.id
