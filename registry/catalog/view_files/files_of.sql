-- files_of(adapter_id): the stored files that rows_of reads: of each selection that taught an adapter
-- or a merged model (version_id is null), and of each dataset version that these drew on.
CREATE MACRO files_of(adapter) AS TABLE
WITH RECURSIVE made_from AS (
    SELECT id AS adapter_id, id AS ancestor FROM objects
    WHERE kind IN ('adapter', 'model') AND starts_with(id, adapter)
    UNION
    SELECT made_from.adapter_id, edges.parent
    FROM made_from
    JOIN edges ON edges.child = made_from.ancestor
    JOIN objects AS child ON child.id = edges.child
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
       OR (edges.role = 'adapter' AND child.kind = 'model')
), taught AS MATERIALIZED (
    SELECT DISTINCT made_from.adapter_id, selection.id AS selection_id, selection.manifest
    FROM made_from
    JOIN edges ON edges.child = made_from.ancestor
    JOIN objects AS selection ON selection.id = edges.parent AND selection.kind = 'selection'
), drawn_on AS (
    SELECT taught.adapter_id, taught.selection_id, version.id AS version_id, version.manifest,
           unnest(json_keys(version.manifest, '$.files')) AS file
    FROM taught
    JOIN edges ON edges.child = taught.selection_id AND edges.role = 'dataset'
    JOIN objects AS version ON version.id = edges.parent
)
SELECT adapter_id, selection_id, NULL AS version_id,
       parquet.path_of('selection', selection_id, 'rows.parquet') AS path,
       manifest->'files'->'rows.parquet'->>'sha256' AS sha256
FROM taught
UNION ALL
SELECT adapter_id, selection_id, version_id,
       parquet.path_of('dataset_version', version_id, file), manifest->'files'->file->>'sha256'
FROM drawn_on WHERE starts_with(file, 'refs');
