"""`gapmend sql` reads the store and nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from registry.catalog import session
from registry.catalog.catalog import Catalog
from registry.catalog.open import snapshot
from registry.catalog.resident import ResidentCatalog
from registry.errors import StoreError, UserError
from registry.store.objects import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workspace") / ".gapmend"
    store = Store(folder)
    with store.draft() as draft:
        (draft / "data.csv").write_text("a,b\n1,2\n")
        ref = store.put("made", draft, identity={"n": 1}, meta={"name": "one"})
    Catalog(folder).commit([ref])
    (folder.parent / "secret.csv").write_text("token\nhf_secret\n")
    return folder


@pytest.fixture
def catalog(root: Path) -> Catalog:
    return Catalog(root, wait_s=30)


def everything(root: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in root.parent.rglob("*")
        if path.is_file() and path.name != "catalog.lock"
    }


@pytest.mark.parametrize(
    "question",
    [
        "SELECT manifest->>'$.meta.name' AS name FROM objects WHERE kind = 'made'",
        "from objects select manifest->>'$.meta.name' as name;",
        "WITH o AS (FROM objects) SELECT manifest->>'$.meta.name' AS name FROM o -- rows",
        "SELECT name FROM (VALUES ('one')) AS v(name)",
    ],
)
def test_questions_are_answered(catalog: Catalog, question: str) -> None:
    result = catalog.sql(question)
    assert result.columns == ("name",)
    assert result.rows == [("one",)]
    assert not result.truncated


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Catalog, Path]:
    """A catalog with two rows, and the file that they are in."""
    store = Store(tmp_path / ".gapmend")
    with store.draft() as draft:
        write_rows(draft / "rows.parquet", "kept")
        ref = store.put("rows", draft, identity={"n": 1})
    Catalog(store.root).commit([ref])
    return Catalog(store.root), ref.path / "rows.parquet"


def write_rows(path: Path, word: str) -> None:
    rows = [{"row_uid": uid, "row_hash": f"{word}{uid}"} for uid in (1, 2)]
    parquet.write_table(pa.Table.from_pylist(rows), path)


READS_ROWS = [
    "SELECT row_hash FROM parquet.stored_rows",
    "WITH a AS (FROM parquet.stored_rows) SELECT (SELECT min(row_hash) FROM a)",
    'SELECT 1 WHERE EXISTS (FROM parquet."Stored_Rows")',
    "SELECT * FROM rows",
    "SUMMARIZE rows",
]


@pytest.mark.parametrize("question", READS_ROWS)
def test_what_a_question_reads_is_held_against_its_manifest(
    stored: tuple[Catalog, Path], question: str
) -> None:
    catalog, file = stored
    catalog.sql(question)
    file.chmod(0o644)
    write_rows(file, "lost")  # a file that DuckDB reads without a word
    for ask in (catalog.sql, catalog.query, catalog.frame):
        with pytest.raises(StoreError, match=r"rows\.parquet: .*SHA-256 is another"):
            ask(question)


def test_a_question_about_other_things_reads_no_rows(stored: tuple[Catalog, Path]) -> None:
    catalog, file = stored
    file.chmod(0o644)
    write_rows(file, "lost")
    for question in ("SELECT rows FROM selections", "SHOW TABLES", "SELECT 'stored_rows' AS rows"):
        catalog.sql(question)


def test_our_own_question_opens_no_file_that_it_does_not_read(
    stored: tuple[Catalog, Path],
) -> None:
    catalog, file = stored
    file.chmod(0o644)
    file.write_bytes(b"no parquet")
    for question in ("SELECT id AS rows FROM objects", "SELECT rows FROM selections"):
        assert len(catalog.query(question).columns) == 1


@pytest.mark.parametrize("folder", ["a b", "wo\u0308rk's 工作/\U0001f600", "x" * 64])
def test_an_object_s_id_is_known_in_any_folder(tmp_path: Path, folder: str) -> None:
    store = Store(tmp_path / folder / ".gapmend")
    with store.draft() as draft:
        write_rows(draft / "rows.parquet", "kept")
        ref = store.put("rows", draft, identity={"n": 1})
    catalog = Catalog(store.root)
    catalog.commit([ref])
    for ask in (catalog.query, catalog.sql, ResidentCatalog(store.root).query):
        assert ask("SELECT DISTINCT object_id FROM parquet.stored_rows").rows == [(ref.id,)]


def test_looking_around_is_allowed(catalog: Catalog) -> None:
    names = {row[0] for row in catalog.sql("SHOW TABLES").rows}
    assert {"gaps", "rows", "runs", "objects", "edges"} <= names
    described = catalog.sql("DESCRIBE rows")
    assert ("row_uid", "BIGINT") in [row[:2] for row in described.rows]
    assert catalog.sql("SUMMARIZE objects").rows


def test_parameters_and_a_limit(catalog: Catalog) -> None:
    result = catalog.sql("SELECT ? + n FROM range(10) AS r(n)", [5], max_rows=3)
    assert result.rows == [(5,), (6,), (7,)]
    assert result.truncated
    assert not catalog.sql("SELECT n FROM range(3) AS r(n)", max_rows=3).truncated


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM objects",
        "INSERT INTO objects VALUES ('a', 'b', now(), '{}')",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW rows",
        "COPY (SELECT 1) TO '{root}/objects/out.csv'",
        "COPY (SELECT 1) TO '{root}/../out.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{root}/objects/out.csv'",
        "EXPORT DATABASE '{root}/objects/out'",
        "ATTACH '{root}/catalog.duckdb' AS other",
        "ATTACH '{root}/objects/new.duckdb' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA enable_profiling",
        "CALL pragma_version()",
        "CHECKPOINT",
        "SELECT 1; DELETE FROM objects",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        "SELECT * FROM enable_logging('QueryLog')",
        "SELECT * FROM \"enable_logging\"(storage = 'file')",
        "SELECT * FROM query('SELECT 1')",
        "SELECT json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "FROM read_text('{root}/../secret.csv')",
        "FROM read_csv('{root}/../secret.csv')",
        "FROM read_csv('{root}/objects/../../secret.csv')",
        "FROM '{root}/../secret.csv'",
        "FROM 'secret.csv'",
        "FROM glob('/*')",
        "FROM read_blob('{root}/catalog.duckdb')",
        "FROM read_text('/etc/passwd')",
        "FROM 'https://example.org/data.csv'",
        "FROM read_parquet('s3://bucket/data.parquet')",
        "SELECT getenv('HOME')",
        "FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM root",
        "SELECT * FROM statement",
        "SELECT nope FROM rows",
        "SELEC 1",
        "SELECT ?",
        "SELECT error('boom')",
        "SELECT 'a'::INTEGER",
    ],
)
def test_everything_else_is_refused_in_one_line(
    catalog: Catalog, root: Path, statement: str
) -> None:
    before = everything(root)
    with pytest.raises(UserError) as caught:
        catalog.sql(statement.replace("{root}", str(root)))
    line = str(caught.value)
    assert line.startswith("sql: ")
    assert "\n" not in line
    assert "secret" not in line.replace("secret.csv", "")
    assert everything(root) == before


def test_a_large_question_may_use_the_disk_inside_the_store(root: Path, monkeypatch) -> None:
    spill = Store(root).drafts / "spill"
    monkeypatch.setattr(Store, "scratch_path", lambda _: spill)
    monkeypatch.setattr(
        session, "snapshot", lambda *args, **kwargs: _with_little_memory(snapshot(*args, **kwargs))
    )
    # With max_temp_directory_size = '0KB' this fails for lack of memory: it does use the disk.
    question = "SELECT count(*) FROM (SELECT hash(n) AS h FROM range(3_000_000) AS r(n) ORDER BY h)"
    rows = Catalog(root).sql(question + " WHERE h > 0").rows
    assert rows[0][0] >= 2_999_999
    assert not spill.exists()


def _with_little_memory(connection):
    connection.execute("SET memory_limit = '24MB'; SET preserve_insertion_order = false")
    return connection


def test_an_error_says_what_would_have_done(catalog: Catalog) -> None:
    with pytest.raises(UserError, match='"verdict"'):
        catalog.sql("SELECT verdikt FROM gaps")
    with pytest.raises(UserError, match="only reads, and this is DELETE; expected one SELECT"):
        catalog.sql("DELETE FROM objects")
