-- One line a test set that was scored: how often it was looked at, the more the less a score proves.
-- An adapter that is asked another thing, a moved goal for instance, looks again. Of evaluations on
-- test and not of promotions, so that one that was killed half-way counts too.
CREATE VIEW looks AS
WITH decided AS (
    SELECT edges.parent AS eval_id, promotion.manifest->'$.meta.tests' AS tests,
           promotion.manifest->>'$.meta.looks' AS look
    FROM edges
    JOIN objects AS promotion ON promotion.id = edges.child AND promotion.kind = 'promotion'
    WHERE edges.role = 'eval'
), scored AS (
    SELECT id, created_at, manifest->>'$.meta.subject' AS subject,
           manifest->>'$.meta.adapter_id' AS adapter_id,
           decided.tests->>(manifest->>'$.meta.subject') AS version_id, decided.look
    FROM objects LEFT JOIN decided ON decided.eval_id = objects.id
    WHERE kind = 'eval' AND (manifest->>'$.meta.split') = 'test'
)
SELECT scored.subject, version.name AS dataset, scored.version_id,
       count(DISTINCT (scored.adapter_id, scored.look))
           FILTER (scored.adapter_id IS NOT NULL) AS looks, count(DISTINCT scored.id) AS evaluations,
       min(scored.created_at) AS first_at, max(scored.created_at) AS last_at
FROM scored
LEFT JOIN dataset_versions AS version ON version.version_id = scored.version_id
GROUP BY ALL
ORDER BY scored.subject, version.name, scored.version_id;
