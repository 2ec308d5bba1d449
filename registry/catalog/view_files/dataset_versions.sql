-- One line a version and dataset that has it: the same rows in the same splits are one version, also
-- of several datasets. Manifest meta: {name, rows, rejects, splits: {train, dev, test, held},
-- license}. The names that came later are in objects of kind 'places', and in the runs.
CREATE VIEW dataset_versions AS
WITH said AS (
    SELECT id AS version_id, manifest->>'$.meta.name' AS name, created_at,
           manifest->>'$.meta.rejects' AS rejects
    FROM objects WHERE kind = 'dataset_version'
    UNION ALL
    SELECT manifest->>'$.identity.version', manifest->>'$.meta.name', created_at,
           manifest->>'$.meta.rejects'
    FROM objects WHERE kind = 'places'
    UNION ALL
    SELECT output->>'$.id', run.manifest->>'$.meta.inputs.name', run.created_at, NULL
    FROM objects AS run, unnest((run.manifest->'$.meta.outputs')::JSON[]) AS made(output)
    WHERE run.kind = 'run' AND contains(run.manifest, '"stage":"ingest"')
      AND (output->>'$.role') = 'version'
), named AS (
    SELECT version_id, name, min(created_at) AS created_at, arg_max(rejects, created_at) AS rejects
    FROM said GROUP BY ALL
)
SELECT id AS version_id,
       coalesce(named.name, manifest->>'$.meta.name') AS name,
       named.created_at,
       (manifest->>'$.meta.rows')::BIGINT AS rows,
       coalesce(named.rejects, manifest->>'$.meta.rejects')::BIGINT AS rejects,
       coalesce((manifest->>'$.meta.splits.train')::BIGINT, 0) AS train,
       coalesce((manifest->>'$.meta.splits.dev')::BIGINT, 0) AS dev,
       coalesce((manifest->>'$.meta.splits.test')::BIGINT, 0) AS test,
       coalesce((manifest->>'$.meta.splits.held')::BIGINT, 0) AS held,
       manifest->>'$.meta.license' AS license
FROM objects JOIN named ON named.version_id = objects.id
WHERE kind = 'dataset_version'
ORDER BY named.created_at, id, named.name;
