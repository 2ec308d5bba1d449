-- One line a version. Manifest meta: {name, rows, rejects, splits: {train, dev, test, held},
-- license}.
CREATE VIEW dataset_versions AS
SELECT id AS version_id,
       manifest->>'$.meta.name' AS name,
       created_at,
       (manifest->>'$.meta.rows')::BIGINT AS rows,
       (manifest->>'$.meta.rejects')::BIGINT AS rejects,
       coalesce((manifest->>'$.meta.splits.train')::BIGINT, 0) AS train,
       coalesce((manifest->>'$.meta.splits.dev')::BIGINT, 0) AS dev,
       coalesce((manifest->>'$.meta.splits.test')::BIGINT, 0) AS test,
       coalesce((manifest->>'$.meta.splits.held')::BIGINT, 0) AS held,
       manifest->>'$.meta.license' AS license
FROM objects WHERE kind = 'dataset_version'
ORDER BY created_at, id;
