-- What full and freeze train are models that hold changed tensors alone: they are put on a base,
-- named and moved like adapters, so they are listed among them.
CREATE OR REPLACE VIEW catalog.adapter_facts AS
SELECT id, created_at,
       manifest->>'$.meta.name' AS name,
       manifest->>'$.meta.base' AS base,
       manifest->>'$.meta.method' AS method,
       TRY_CAST(manifest->>'$.meta.rank' AS DOUBLE)::BIGINT AS rank,
       TRY_CAST(manifest->>'$.meta.round' AS DOUBLE)::BIGINT AS round,
       TRY_CAST(manifest->>'$.meta.rows' AS DOUBLE)::BIGINT AS rows,
       TRY_CAST(manifest->>'$.meta.loss' AS DOUBLE) AS loss,
       TRY_CAST(manifest->>'$.meta.scale' AS DOUBLE) AS scale
FROM catalog.objects
WHERE kind = 'adapter' OR (kind = 'model' AND (manifest->>'$.identity.changed') IS NOT NULL);
