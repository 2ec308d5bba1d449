-- One line a selection and dataset version that it drew rows from, with the name that the dataset
-- had then: of a version of several names, those that were in the pool.
CREATE VIEW drawn_from AS
WITH pools AS (
    SELECT output->>'$.id' AS selection_id, run.manifest->'$.meta.inputs.pool' AS pool
    FROM objects AS run, unnest((run.manifest->'$.meta.outputs')::JSON[]) AS made(output)
    WHERE run.kind = 'run' AND contains(run.manifest, '"stage":"select"')
      AND (output->>'$.role') = 'selection'
), listed AS (
    SELECT selection_id, pool, unnest(json_keys(pool)) AS dataset FROM pools
), named AS (
    SELECT selection_id, json_extract_string(pool, concat('$."', dataset, '"')) AS version_id,
           string_agg(dataset, ', ' ORDER BY dataset) AS dataset
    FROM listed GROUP BY ALL
)
SELECT edges.child AS selection_id, edges.parent AS version_id,
       coalesce(named.dataset, version.manifest->>'$.meta.name') AS dataset
FROM edges
JOIN objects AS version ON version.id = edges.parent AND version.kind = 'dataset_version'
JOIN objects AS selection ON selection.id = edges.child AND selection.kind = 'selection'
LEFT JOIN named ON named.selection_id = edges.child AND named.version_id = edges.parent;
