-- rows_of(adapter_id): every row that an adapter or a merged model was trained on, what for, why, and
-- where it stands in the data. A prefix of the id is enough. Only the files of the selections that
-- taught it, and of the dataset versions that these drew on, are read: hence the joins by filename.
CREATE MACRO rows_of(adapter) AS TABLE
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
    SELECT DISTINCT made_from.adapter_id, selection.id AS selection_id,
           parquet.path_of('selection', selection.id, 'rows.parquet') AS path
    FROM made_from
    JOIN edges ON edges.child = made_from.ancestor
    JOIN objects AS selection ON selection.id = edges.parent AND selection.kind = 'selection'
), drawn_on AS MATERIALIZED (
    SELECT DISTINCT taught.selection_id, edges.parent AS version_id,
           parquet.path_of('dataset_version', edges.parent, named.file) AS path
    FROM taught JOIN edges ON edges.child = taught.selection_id AND edges.role = 'dataset'
    JOIN objects AS version ON version.id = edges.parent,
         unnest(json_keys(version.manifest, '$.files')) AS named(file)
    WHERE starts_with(named.file, 'refs')
), picked AS MATERIALIZED (
    SELECT taught.adapter_id, taught.selection_id, pick.row_uid, pick.row_hash, pick.capability,
           pick.reason, pick.score, pick.rank
    FROM parquet.stored_picks AS pick JOIN taught ON pick.filename = taught.path
), wanted AS MATERIALIZED (
    SELECT DISTINCT selection_id, row_uid FROM picked
), stands AS MATERIALIZED (
    SELECT wanted.selection_id, wanted.row_uid,
           min({elsewhere: refs.split <> 'train', version: drawn_on.version_id,
                file: refs.source_file, line: refs.source_line}) AS at
    FROM parquet.stored_refs AS refs
    JOIN drawn_on ON refs.filename = drawn_on.path
    JOIN wanted ON wanted.selection_id = drawn_on.selection_id AND wanted.row_uid = refs.row_uid
    GROUP BY ALL
)
SELECT picked.adapter_id, picked.row_uid, drawn.dataset, stands.at.version AS version_id,
       picked.capability, picked.reason, picked.score, picked.rank,
       stands.at.file AS source_file, stands.at.line AS source_line,
       picked.row_hash, picked.selection_id
FROM picked
LEFT JOIN stands
  ON stands.selection_id = picked.selection_id AND stands.row_uid = picked.row_uid
LEFT JOIN drawn_from AS drawn
  ON drawn.selection_id = picked.selection_id AND drawn.version_id = stands.at.version;
