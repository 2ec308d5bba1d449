-- One line a selection. Manifest meta: {base, rows, replay_rows, budget: {capability: rows},
-- round}.
CREATE VIEW selections AS
SELECT id AS selection_id,
       manifest->>'$.meta.base' AS base,
       (manifest->>'$.meta.round')::DOUBLE::BIGINT AS round,
       (manifest->>'$.meta.rows')::BIGINT AS rows,
       (manifest->>'$.meta.replay_rows')::BIGINT AS replay_rows,
       manifest->'$.meta.budget' AS budget,
       created_at
FROM objects WHERE kind = 'selection'
ORDER BY created_at, id;
