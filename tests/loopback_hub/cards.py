"""The metadata in front of a README.md, checked as the Hub does when it is committed."""

from __future__ import annotations

import re
from typing import Any

import yaml

_FRONT = re.compile(rb"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_RELATIONS = {"adapter", "merge", "quantized", "finetune"}


def metadata_of(readme: bytes) -> dict[str, Any] | None:
    """Return the metadata, or None where there is none or it is broken."""
    found = _FRONT.search(readme)
    if found is None:
        return None
    try:
        metadata = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return None
    return metadata if isinstance(metadata, dict) else None


def faults_of_card(readme: bytes) -> list[str]:
    """Say what the Hub would refuse in a README's metadata; nothing is fine as well."""
    found = _FRONT.search(readme)
    if found is None:
        return []
    try:
        metadata = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [f"YAML: {' '.join(str(error).split())}"]
    if metadata is None:
        return []
    if not isinstance(metadata, dict):
        return ["metadata must be an object"]
    return [*_faults_of_keys(metadata), *_faults_of_index(metadata.get("model-index"))]


def _faults_of_keys(metadata: dict[str, Any]) -> list[str]:
    faults = [
        f'"{key}" must be a string'
        for key in ("license", "library_name", "pipeline_tag")
        if not isinstance(metadata.get(key, ""), str)
    ]
    for key in ("tags", "datasets", "base_model", "language", "metrics"):
        value = metadata.get(key, [])
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in several):
            faults.append(f'"{key}" must be a string or a list of strings')
    relation = metadata.get("base_model_relation")
    if relation is not None and relation not in _RELATIONS:
        faults.append(f'"base_model_relation" must be one of {sorted(_RELATIONS)}')
    return faults


def _faults_of_index(index: Any) -> list[str]:
    if index is None:
        return []
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    faults = []
    for at, model in enumerate(index):
        where = f'"model-index[{at}]'
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            faults.append(f'{where}.name" is required')
            continue
        if not isinstance(model.get("results"), list):
            faults.append(f'{where}.results" must be an array')
            continue
        for number, result in enumerate(model["results"]):
            faults += _faults_of_result(result, f"{where}.results[{number}]")
    return faults


def _faults_of_result(result: Any, where: str) -> list[str]:
    if not isinstance(result, dict):
        return [f'{where}" must be an object']
    faults = [
        f'{where}.{part}.{key}" is required'
        for part, key in (("task", "type"), ("dataset", "type"), ("dataset", "name"))
        for value in [result.get(part)]
        if not isinstance(value, dict) or not isinstance(value.get(key), str)
    ]
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        return [*faults, f'{where}.metrics" is required']
    for at, metric in enumerate(metrics):
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str):
            faults.append(f'{where}.metrics[{at}].type" is required')
        elif "value" not in metric:
            faults.append(f'{where}.metrics[{at}].value" is required')
    return faults
