"""The licences of the base and of datasets whose version states none, as they are known today.

From the spec and from what lies beside the files; of the Hub, what its cache has. Nothing is
fetched, and what can't be read says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import SPEC_FILE, UserError
from registry.intake.license import SaidLicense, license_in
from registry.models.base import MERGED, NANO, identify, locate
from registry.store.kinds import RunMeta

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.spec.spec import Spec
    from pipeline.workspace.store import WorkspaceStore
    from registry.datasets.spec import DatasetSpec
    from registry.lineage.adapter_facts import AdapterBasics
    from registry.lineage.graph import Lineage
    from registry.models.base import BaseSpec

_CARD = "README.md"


@dataclass(frozen=True)
class Licenses:
    """Those of the base and of datasets; None where nothing says it."""

    base: SaidLicense | None
    datasets: Mapping[str, SaidLicense | None]


def licenses(
    ws: WorkspaceStore,
    base: str,
    facts: AdapterBasics | None,
    came: Lineage,
    datasets: Iterable[str],
) -> Licenses:
    """Return the licences that the records don't say.

    Args:
        ws: what the workspace keeps.
        base: its name in the spec.
        facts: of the adapter; None where nothing was trained.
        came: the lineage of the adapter or gap.
        datasets: those whose version states none.
    """
    spec = _spec(ws.root)
    digest = facts.base_digest if facts else _base_of(ws, came)
    found = base_license(ws.root, spec, base, digest, facts)
    return Licenses(found, dataset_licenses(ws.root, spec, datasets))


def _base_of(ws: WorkspaceStore, came: Lineage) -> str | None:
    """Return the digest of the base that was measured for a gap."""
    runs = (ws.catalog.manifest(one.id, RunMeta).meta for one in came.nodes if one.kind == "run")
    return next((run.inputs.get("base") for run in runs if run.stage == "gap"), None)


def _spec(root: Path) -> Spec | None:
    """Return the workspace's spec as it is now; None where it isn't valid."""
    from pipeline.spec.spec import load_spec

    try:
        return load_spec(root / SPEC_FILE)
    except UserError:
        return None


def base_license(
    root: Path, spec: Spec | None, name: str, digest: str | None, facts: AdapterBasics | None
) -> SaidLicense | None:
    """Return the licence of the base that something goes on; None where nothing says it.

    Args:
        root: the workspace.
        spec: as it is now.
        name: the base's in the spec.
        digest: the base's; one that the spec names otherwise by now is another.
        facts: of the adapter: what the base is on the Hub, should the spec not name it any more.
    """
    bases = spec.bases if spec else {}
    for one in sorted(bases, key=lambda given: given != name):  # its own name first
        try:
            if _is_on_hub(bases[one], root):
                if facts is None and one == name:
                    return _of_spec(bases[one].license) or _cached(bases[one].model, None)
                if facts is not None and bases[one].model == facts.base:
                    return _of_spec(bases[one].license) or _cached(facts.base, facts.revision)
            elif identify(one, bases[one], root).digest == digest:
                folder = locate(one, bases[one], root).path
                return _of_spec(bases[one].license) or license_in(folder)
        except UserError:
            continue
    return _cached(facts.base, facts.revision) if facts and facts.revision else None


def dataset_licenses(
    root: Path, spec: Spec | None, names: Iterable[str]
) -> dict[str, SaidLicense | None]:
    """Return dataset -> what lies beside its files, or the Hub's cache, says."""
    datasets = spec.datasets if spec else {}
    return {name: _beside(datasets[name], root) for name in names if name in datasets}


def _beside(spec: DatasetSpec, root: Path) -> SaidLicense | None:
    from registry.store.paths import resolve

    if spec.license is not None:
        return _of_spec(spec.license)
    if spec.hub is not None:
        return _cached(spec.hub, spec.revision, "dataset")
    if spec.sql is not None:
        return None
    for place in spec.places.values():
        try:
            path = resolve(place, root)
        except UserError:
            continue
        folder = path if path.is_dir() else path.parent
        # What lies in the workspace itself is of the workspace.
        if folder.resolve() != root.resolve() and (found := license_in(folder)) is not None:
            return found
    return None


def _of_spec(name: str | None) -> SaidLicense | None:
    return SaidLicense(name, "the spec") if name else None


def _is_on_hub(spec: BaseSpec, root: Path) -> bool:
    from registry.models.from_gguf import gguf_file

    if spec.model == NANO or spec.model.startswith(MERGED):
        return False
    if (root / Path(spec.model).expanduser()).is_dir():
        return False
    return gguf_file(spec.model, root, "bases") is None


def _cached(repo: str, revision: str | None, kind: str = "model") -> SaidLicense | None:
    """Return what the card of a repository on the Hub says, if the cache has it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        card = try_to_load_from_cache(repo, _CARD, revision=revision, repo_type=kind)
    except HFValidationError:
        return None
    return license_in(Path(card).parent) if isinstance(card, str) else None
