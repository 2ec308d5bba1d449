-- rows_of(adapter_id): every row that an adapter or a merged model was trained on, what for, why, and
-- where it stands in the data. A prefix of the id is enough. Only files_of it are read: hence the
-- joins by filename.
CREATE MACRO rows_of(adapter) AS TABLE
WITH read AS MATERIALIZED (
    SELECT * FROM files_of(adapter)
), drawn_on AS MATERIALIZED (
    SELECT DISTINCT selection_id, version_id, path FROM read WHERE version_id IS NOT NULL
), picked AS MATERIALIZED (
    SELECT read.adapter_id, read.selection_id, pick.row_uid, pick.row_hash, pick.capability,
           pick.reason, pick.score, pick.rank
    FROM parquet.stored_picks AS pick JOIN read ON pick.filename = read.path
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
