-- One line a tuned capability and measurement of an adapter: did it close the gap? Manifest meta of
-- kind 'forgetting': {closed: {capability: ClosedFinding as JSON: {goal, margin, score: {mean, low,
-- high, n}, verdict, items_to_settle, reason}}, changes: see forgetting.sql}.
CREATE VIEW closed AS
WITH findings AS (
    SELECT objects.id, created_at, manifest, entry.key AS capability, entry.value AS finding
    FROM objects, json_each(manifest, '$.meta.closed') AS entry
    WHERE objects.kind = 'forgetting'
), changed AS (
    SELECT *, json_extract(manifest->'$.meta.changes', capability) AS change FROM findings
)
SELECT capability,
       manifest->>'$.meta.adapter' AS adapter_id,
       (manifest->>'$.meta.scale')::DOUBLE AS scale,
       manifest->>'$.meta.against' AS against,
       manifest->>'$.meta.split' AS split,
       (finding->>'$.score.n')::BIGINT AS items,
       (finding->>'$.goal')::DOUBLE AS goal,
       (change->>'$.before')::DOUBLE AS before,
       (finding->>'$.score.mean')::DOUBLE AS score,
       (finding->>'$.score.low')::DOUBLE AS low,
       (finding->>'$.score.high')::DOUBLE AS high,
       (change->>'$.lost')::BIGINT AS lost,
       (change->>'$.gained')::BIGINT AS gained,
       (change->>'$.kl')::DOUBLE AS kl,
       finding->>'$.verdict' AS verdict,
       (finding->>'$.items_to_settle')::BIGINT AS items_to_settle,
       finding->>'$.reason' AS reason,
       id AS forgetting_id,
       created_at
FROM changed
ORDER BY created_at, forgetting_id, capability;
