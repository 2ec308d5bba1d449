-- One line a guard and comparison of an adapter with its base. Manifest meta: {base, adapter_id,
-- scale, round, findings: [GuardFinding as JSON: {guard, n, before, after, lost, gained,
-- difference: {mean, low, high, n}, p_midp, p_bh, verdict, max_drop, accepted,
-- items_to_settle}]}. before and after are means (numbers).
CREATE VIEW forgetting AS
WITH findings AS (
    SELECT id, created_at, manifest, unnest((manifest->'$.meta.findings')::JSON[]) AS finding
    FROM objects WHERE kind = 'forgetting'
)
SELECT finding->>'$.guard' AS guard,
       manifest->>'$.meta.adapter_id' AS adapter_id,
       (manifest->>'$.meta.scale')::DOUBLE AS scale,
       (manifest->>'$.meta.round')::DOUBLE::BIGINT AS round,
       (finding->>'$.n')::BIGINT AS items,
       (finding->>'$.before')::DOUBLE AS before,
       (finding->>'$.after')::DOUBLE AS after,
       (finding->>'$.lost')::BIGINT AS lost,
       (finding->>'$.gained')::BIGINT AS gained,
       (finding->>'$.difference.mean')::DOUBLE AS difference,
       (finding->>'$.difference.low')::DOUBLE AS difference_low,
       (finding->>'$.p_bh')::DOUBLE AS p_bh,
       finding->>'$.verdict' AS verdict,
       (finding->>'$.accepted')::BOOLEAN AS accepted,
       (finding->>'$.items_to_settle')::DOUBLE::BIGINT AS items_to_settle,
       manifest->>'$.meta.base' AS base,
       id AS forgetting_id,
       created_at
FROM findings
ORDER BY created_at, forgetting_id, guard;
