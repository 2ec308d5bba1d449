-- One line a tuned capability and measurement of an adapter: did it close the gap? Manifest meta of
-- kind 'forgetting': {closed: {capability: ClosedFinding as JSON: {goal, margin, score: {mean, low,
-- high, n}, verdict, items_to_settle, reason}}}.
CREATE VIEW closed AS
WITH findings AS (
    SELECT objects.id, created_at, manifest, entry.key AS capability, entry.value AS finding
    FROM objects, json_each(manifest, '$.meta.closed') AS entry
    WHERE objects.kind = 'forgetting'
)
SELECT capability,
       manifest->>'$.meta.adapter' AS adapter_id,
       (manifest->>'$.meta.scale')::DOUBLE AS scale,
       manifest->>'$.meta.split' AS split,
       (finding->>'$.score.n')::BIGINT AS items,
       (finding->>'$.goal')::DOUBLE AS goal,
       (finding->>'$.score.mean')::DOUBLE AS score,
       (finding->>'$.score.low')::DOUBLE AS low,
       (finding->>'$.score.high')::DOUBLE AS high,
       finding->>'$.verdict' AS verdict,
       (finding->>'$.items_to_settle')::BIGINT AS items_to_settle,
       finding->>'$.reason' AS reason,
       id AS forgetting_id,
       created_at
FROM findings
ORDER BY created_at, forgetting_id, capability;
