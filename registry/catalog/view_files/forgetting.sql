-- One line a guard (or capability that was met) and comparison of an adapter with its base, or with
-- the adapter `against`. normalised_drop: of what there was above chance; kl: in nats; came_back: of
-- the lost items that were asked_again with another prompt, those that score as before.
-- Manifest meta of kind 'forgetting': {adapter, scale, split, kept: [GuardFinding as JSON: {guard,
-- n, before, after, lost, gained, difference: {mean, low, high, n}, max_drop, p_midp, p_bh,
-- verdict, items_to_settle, accepted, reason, witness}], closed: see closed.sql, changes: {guard: Change as
-- JSON: {chance, normalised_drop, kl, reprompt: {arm, asked, came_back_uids}}}}.
CREATE VIEW forgetting AS
WITH findings AS (
    SELECT id, created_at, manifest, unnest((manifest->'$.meta.kept')::JSON[]) AS finding
    FROM objects WHERE kind = 'forgetting'
), changed AS (
    SELECT *, json_extract(manifest->'$.meta.changes', finding->>'$.guard') AS change FROM findings
)
SELECT finding->>'$.guard' AS guard,
       manifest->>'$.meta.adapter' AS adapter_id,
       (manifest->>'$.meta.scale')::DOUBLE AS scale,
       manifest->>'$.meta.against' AS against,
       manifest->>'$.meta.split' AS split,
       (finding->>'$.n')::BIGINT AS items,
       (finding->>'$.before')::DOUBLE AS before,
       (finding->>'$.after')::DOUBLE AS after,
       (finding->>'$.lost')::BIGINT AS lost,
       (finding->>'$.gained')::BIGINT AS gained,
       (finding->>'$.difference.mean')::DOUBLE AS difference,
       (finding->>'$.difference.low')::DOUBLE AS difference_low,
       (finding->>'$.max_drop')::DOUBLE AS max_drop,
       (change->>'$.chance')::DOUBLE AS chance,
       (change->>'$.normalised_drop')::DOUBLE AS normalised_drop,
       (change->>'$.kl')::DOUBLE AS kl,
       (change->>'$.reprompt.asked')::BIGINT AS asked_again,
       json_array_length(change, '$.reprompt.came_back_uids')::BIGINT AS came_back,
       (finding->>'$.p_bh')::DOUBLE AS p_bh,
       finding->>'$.verdict' AS verdict,
       (finding->>'$.accepted')::BOOLEAN AS accepted,
       coalesce((finding->>'$.witness')::BOOLEAN, FALSE) AS witness,
       (finding->>'$.items_to_settle')::BIGINT AS items_to_settle,
       finding->>'$.reason' AS reason,
       id AS forgetting_id,
       created_at
FROM changed
ORDER BY created_at, forgetting_id, guard;
