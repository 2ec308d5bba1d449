"""MLflow's side of registry_scale.py; run by the Python that has MLflow, which is not ours.

    PYTHON _mlflow.py fill DATABASE MODELS VERSIONS     make a registry with as many versions
    PYTHON _mlflow.py register|search DATABASE          do it once (the process is what is timed)
    PYTHON _mlflow.py warm DATABASE TIMES               do both from one client; seconds as JSON

A fresh registry of MLflow's is filled by SQL, row for row what its client writes: by the client
alone it would take half an hour.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
BASES = 7
NEWEST = 20


def client(database: str) -> Any:
    """Return MLflow's client of the registry in an SQLite file."""
    from mlflow.tracking import MlflowClient

    logging.disable(logging.INFO)
    return MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")


def fill(database: str, models: int, versions: int) -> None:
    """Make the schema with MLflow, and the rows with SQL."""
    Path(database).unlink(missing_ok=True)
    first = client(database)
    first.create_registered_model("model-0")
    first.create_model_version("model-0", "models/0", tags={"base": "base-0"})
    connection = sqlite3.connect(database)
    pattern = [connection.execute(f"SELECT * FROM {name}").fetchone() for name in _TABLES]  # noqa: S608
    for name, row in zip(_TABLES, pattern, strict=True):
        columns = [column[1] for column in connection.execute(f"PRAGMA table_info({name})")]
        rows = _rows(name, dict(zip(columns, row, strict=True)), models, versions)
        places = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT OR IGNORE INTO {name} VALUES ({places})", rows)  # noqa: S608
    connection.commit()
    connection.close()


_TABLES = ("registered_models", "model_versions", "model_version_tags")


def _rows(table: str, row: dict[str, Any], models: int, versions: int) -> list[tuple[Any, ...]]:
    made = []
    for model in range(models):
        for version in range(1, 2 if table == "registered_models" else versions + 1):
            new = dict(row) | {"name": f"model-{model}"}
            if "version" in row:
                new["version"] = version
            if "creation_time" in row:
                new["creation_time"] = new["last_updated_time"] = (
                    10**12 + model * versions + version
                )
            if "source" in row:
                new["source"] = new["storage_location"] = f"models/{model}/{version}"
            if table == "model_version_tags":
                new["value"] = f"base-{model % BASES}"
            made.append(tuple(new.values()))
    return made


def register(registry: Any) -> None:
    """Add one version, with its base as a tag."""
    source = f"models/{uuid.uuid4().hex}"
    registry.create_model_version("model-3", source, tags={"base": "base-3"})


def search(registry: Any) -> None:
    """Find the newest versions of one base."""
    found = registry.search_model_versions(
        "tags.base = 'base-3'", max_results=NEWEST, order_by=["creation_timestamp DESC"]
    )
    assert len(found) == NEWEST


def seconds(act: Callable[[Any], None], registry: Any) -> float:
    """Return the wall-clock seconds of one call."""
    began = time.perf_counter()
    act(registry)
    return time.perf_counter() - began


def main() -> None:
    """Do as the arguments say."""
    what, database, *numbers = sys.argv[1:]
    if what == "fill":
        fill(database, *map(int, numbers))
        return
    registry = client(database)
    acts = {"register": register, "search": search}
    if what in acts:
        acts[what](registry)
        return
    for act in acts.values():
        act(registry)  # the first call connects
    taken = {
        name: [seconds(act, registry) for _ in range(int(numbers[0]))] for name, act in acts.items()
    }
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
