-- One line an adapter, or a model that holds changed tensors alone (full, freeze). Manifest meta: {base, method, rank, alpha, rows, steps, tokens, seconds,
-- loss, scale, round}. The run that made it is its parent with role 'run'; selection_id is what that
-- run trained on. What it was started from or put together from may have had others:
-- rows_that_taught and adapter_selections have them all.
CREATE VIEW adapters AS
WITH trained_on AS (
    SELECT adapter_id, min(selection.id) AS selection_id
    FROM (
        SELECT child AS adapter_id, parent FROM edges
        UNION ALL
        SELECT made.child, taken.parent
        FROM edges AS made
        JOIN objects AS run ON run.id = made.parent AND (run.manifest->>'$.meta.stage') = 'train'
        JOIN edges AS taken ON taken.child = run.id
        WHERE made.role = 'run'
    ) AS steps
    JOIN objects AS selection ON selection.id = steps.parent AND selection.kind = 'selection'
    GROUP BY adapter_id
)
SELECT adapter.id AS adapter_id,
       adapter.manifest->>'$.meta.base' AS base,
       adapter.manifest->>'$.meta.method' AS method,
       (adapter.manifest->>'$.meta.rank')::DOUBLE::BIGINT AS rank,
       (adapter.manifest->>'$.meta.alpha')::DOUBLE AS alpha,
       (adapter.manifest->>'$.meta.round')::DOUBLE::BIGINT AS round,
       (adapter.manifest->>'$.meta.rows')::DOUBLE::BIGINT AS rows,
       (adapter.manifest->>'$.meta.steps')::DOUBLE::BIGINT AS steps,
       (adapter.manifest->>'$.meta.tokens')::DOUBLE::BIGINT AS tokens,
       (adapter.manifest->>'$.meta.seconds')::DOUBLE AS seconds,
       (adapter.manifest->>'$.meta.loss')::DOUBLE AS loss,
       (SELECT list(name ORDER BY name) FROM aliases
        WHERE aliases.target = adapter.id AND aliases.current) AS aliases,
       (SELECT min(parent) FROM edges WHERE child = adapter.id AND role = 'run') AS run_id,
       trained_on.selection_id,
       adapter.created_at
FROM objects AS adapter
LEFT JOIN trained_on ON trained_on.adapter_id = adapter.id
WHERE adapter.kind = 'adapter'
   OR (adapter.kind = 'model' AND (adapter.manifest->>'$.identity.changed') IS NOT NULL)
ORDER BY adapter.created_at, adapter.id;
