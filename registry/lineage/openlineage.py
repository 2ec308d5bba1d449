"""Every run as OpenLineage events, for catalogs and dashboards that read that.

A run is a START and a COMPLETE or FAIL; its inputs and outputs are datasets, named by kind and id
(dataset versions by their dataset's name, the id as version). What could tell of the machine or
its owner, a path or a token, is left out wherever it stands.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any

from registry.catalog.sql import fill
from registry.catalog.views import stored_columns
from registry.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset
    from openlineage.client.generated.base import DatasetFacet, RunFacet

    from registry.catalog.catalog import Catalog
    from registry.store.kinds import RunMeta
    from registry.store.manifest import Manifest

NAMESPACE = "gapmend"

_PRODUCER = "urn:gapmend:openlineage"
_RUNS = uuid.uuid5(uuid.NAMESPACE_URL, _PRODUCER)
# The Parquet table of each kind of object that has one.
_TABLES = {
    "rows": "stored_rows",
    "dataset_version": "stored_refs",
    "eval": "stored_samples",
    "selection": "stored_picks",
    "metrics": "stored_metrics",
}
_FACTS = """
SELECT id, kind, manifest->>'$.meta.name', TRY_CAST(manifest->>'$.meta.rows' AS BIGINT),
       json_extract(manifest, '$.files.*.bytes')::BIGINT[]
FROM catalog.objects WHERE id IN ?
"""
_AT_ONCE = 200  # runs whose datasets are looked up together
_KNOWN = (
    "seed",
    "code_version",
    "seconds",
    "environment",
    "hardware",
    "inputs",
    "config",
    "result",
)
_PATH = re.compile(
    r"(?:(?<=^)|(?<=[\s'\"`(\[{<=:,;|]))(?:~?/(?!/)|[A-Za-z]:[\\/]|\\\\|file:)[^\s'\"`)\]}>,;]+"
)
_TOKEN = re.compile(
    r"\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[a-z]-|AKIA|eyJ)[A-Za-z0-9_.-]{12,}"
    r"|(?<=://)[^/\s@]+@"
)
_SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a dataset is known by."""

    id: str
    kind: str
    name: str | None
    rows: int | None
    bytes: tuple[int, ...]


def openlineage(catalog: Catalog, *, namespace: str = NAMESPACE) -> Iterator[dict[str, Any]]:
    """Give the events of all runs, oldest run first, as JSON objects of OpenLineage's model.

    Args:
        catalog: where the runs are.
        namespace: of jobs and datasets; one for each workspace keeps them apart.

    Raises:
        UserError, StoreError: the catalog can't be opened.
        UserError: the extra is missing.
    """
    require_extra("openlineage")
    from openlineage.client.serde import Serde

    from registry.store.kinds import RunMeta

    for runs in _batches(catalog.each(RunMeta)):
        ends = {end for run in runs for end in (*_read_by(run), *_made_by(run))}
        facts = _facts(catalog, sorted(ends))
        for run in runs:
            for event in _events(run, facts, namespace):
                yield Serde.to_dict(event)


def _batches(runs: Iterator[Manifest[RunMeta]]) -> Iterator[list[Manifest[RunMeta]]]:
    while batch := list(islice(runs, _AT_ONCE)):
        yield batch


def _read_by(run: Manifest[RunMeta]) -> list[str]:
    return [parent.id for parent in run.parents]


def _made_by(run: Manifest[RunMeta]) -> list[str]:
    return [output.id for output in run.meta.outputs]


def _events(run: Manifest[RunMeta], facts: Mapping[str, _Facts], namespace: str) -> Iterator[Any]:
    from openlineage.client.event_v2 import Run, RunEvent, RunState

    meta = run.meta
    failed = not meta.done
    facts = _as_named(meta, facts)
    job = _job(meta.stage, namespace)
    read = [_input(facts[one], namespace) for one in dict.fromkeys(_read_by(run)) if one in facts]
    written = [
        _output(facts[one], namespace) for one in dict.fromkeys(_made_by(run)) if one in facts
    ]
    ended = RunState.FAIL if failed else RunState.COMPLETE
    for state, moment, outputs in (
        (RunState.START, meta.started_at, []),
        (ended, meta.ended_at, written),
    ):
        began = state is RunState.START
        facets = _engine() if began else _engine() | _known(meta) | (_error(meta) if failed else {})
        yield RunEvent(
            eventTime=moment,
            eventType=state,
            run=Run(runId=str(uuid.uuid5(_RUNS, run.id)), facets=facets),
            job=job,
            inputs=read,
            outputs=outputs,
            producer=_PRODUCER,
        )


def _as_named(meta: RunMeta, facts: Mapping[str, _Facts]) -> Mapping[str, _Facts]:
    """Return the facts with each dataset version under the name that the run knew it by.

    The same rows are one version, whatever the datasets are called: it has the first one's name.
    """
    pool = meta.inputs.get("pool") or {}
    named = {version_id: name for name, version_id in pool.items()}
    if meta.stage == "ingest":
        named = {one.id: meta.inputs["name"] for one in meta.outputs if one.role == "version"}
    others = {key: replace(facts[key], name=name) for key, name in named.items() if key in facts}
    return {**facts, **others}


def _job(stage: str, namespace: str) -> Job:
    from openlineage.client.event_v2 import Job
    from openlineage.client.facet_v2 import job_type_job

    kind = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="GAPMEND", jobType=stage.upper(), producer=_PRODUCER
    )
    return Job(namespace=namespace, name=stage, facets={"jobType": kind})


def _engine() -> dict[str, RunFacet]:
    from openlineage.client.facet_v2 import processing_engine_run

    engine = processing_engine_run.ProcessingEngineRunFacet(
        version=version("gapmend"), name="gapmend", producer=_PRODUCER
    )
    return {"processing_engine": engine}


def _known(meta: RunMeta) -> dict[str, RunFacet]:
    """Return a facet of our own: how the run was made, and what came of it."""
    from openlineage.client.generated.base import RunFacet

    said = meta.as_json()
    known = {key: _clean(said[key]) for key in _KNOWN if said.get(key) is not None}
    facet: Any = RunFacet(producer=_PRODUCER).with_additional_properties(**known)
    return {"gapmend": facet}


def _error(meta: RunMeta) -> dict[str, RunFacet]:
    from openlineage.client.facet_v2 import error_message_run

    message = _clean(str(meta.result.get("error", meta.status)))
    error = error_message_run.ErrorMessageRunFacet(
        message=message, programmingLanguage="PYTHON", producer=_PRODUCER
    )
    return {"errorMessage": error}


def _input(facts: _Facts, namespace: str) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(namespace, _name(facts), facets=_facets(facts))


def _output(facts: _Facts, namespace: str) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    written = statistics.OutputStatisticsOutputDatasetFacet(
        rowCount=facts.rows,
        size=sum(facts.bytes),
        fileCount=len(facts.bytes),
        producer=_PRODUCER,
    )
    return OutputDataset(
        namespace, _name(facts), outputFacets={"outputStatistics": written}, facets=_facets(facts)
    )


def _name(facts: _Facts) -> str:
    if facts.kind == "dataset_version" and facts.name:
        return f"dataset/{facts.name}"
    return f"{facts.kind}/{facts.id}"


def _facets(facts: _Facts) -> dict[str, DatasetFacet]:
    from openlineage.client.facet_v2 import (
        dataset_type_dataset,
        dataset_version_dataset,
        schema_dataset,
    )

    facets: dict[str, DatasetFacet] = {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=facts.id, producer=_PRODUCER
        ),
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(
            datasetType=facts.kind.upper(), producer=_PRODUCER
        ),
    }
    table = _TABLES.get(facts.kind)
    if table:
        fields = [
            schema_dataset.SchemaDatasetFacetFields(name=name, type=kind)
            for name, kind in stored_columns(table)
        ]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields, producer=_PRODUCER)
    return facets


def _facts(catalog: Catalog, ids: list[str]) -> dict[str, _Facts]:
    if not ids:
        return {}
    with catalog.reading() as connection:
        rows = connection.execute(fill(_FACTS, [tuple(ids)])).fetchall()
    return {
        one: _Facts(one, kind, name, count, tuple(sizes or ()))
        for one, kind, name, count, sizes in rows
    }


def _clean(value: Any) -> Any:
    """Return JSON values without paths of this machine, tokens, and whatever is named a secret."""
    if isinstance(value, str):
        return _PATH.sub("(path)", _TOKEN.sub("(token)", value))
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {
            _clean(key): "(left out)"
            if isinstance(one, str) and _SECRET.search(key)
            else _clean(one)
            for key, one in value.items()
        }
    return value
