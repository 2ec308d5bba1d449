"""The process that runs one SQL query: `python -P -m` with this module, JSON on stdin.

What is wrong with the query is its output; then it ends with 1. Nothing but reading files of the
workspace and writing the one result is possible: extensions, the network, other files and Python's
variables are out of reach, and DuckDB's settings are locked before the query is looked at.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Write the rows of the query on stdin to its Parquet file; return the exit status."""
    import duckdb

    given = json.load(sys.stdin)
    try:
        _write(given["sql"], given["folders"], given["file"], given["memory"])
    except duckdb.OutOfMemoryException:
        print(f"it takes more than {given['memory']} of memory; expected fewer or shorter rows")  # noqa: T201
        return 1
    except (duckdb.Error, ValueError) as error:
        print(str(error).split("\n\n")[0])  # noqa: T201 - then comes the line with a caret
        return 1
    return 0


def _write(sql: str, folders: list[str], file: str, memory: str) -> None:
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
        "temp_directory": str(Path(file).parent / "spilled"),
    }
    with duckdb.connect(":memory:", config=config) as connection:
        allowed = ", ".join(map(_quoted, folders))
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            message = "not a query; expected one SELECT"
            raise ValueError(message)
        # What it says is checked above to be one whole SELECT, so that it can't end the COPY.
        query = sql.rstrip().rstrip(";")
        rows = f"SELECT * FROM ({query}\n) ORDER BY ALL"  # noqa: S608 - as it is meant
        connection.execute(f"COPY ({rows}) TO {_quoted(file)} (FORMAT parquet, COMPRESSION zstd)")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    sys.exit(main())
