-- One line an adapter. Manifest meta: {base, method, rank, alpha, rows, steps, tokens, seconds,
-- loss, scale, round}. The run that made it is its parent with role 'run'.
CREATE VIEW adapters AS
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
       (SELECT min(selection_id) FROM adapter_selections AS taught
        WHERE taught.adapter_id = adapter.id) AS selection_id,
       adapter.created_at
FROM objects AS adapter WHERE adapter.kind = 'adapter'
ORDER BY adapter.created_at, adapter.id;
