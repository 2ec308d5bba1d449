-- One line a merge into a base: of an adapter (method NULL), or of several (adapter_ids; adapter_id
-- is then the new adapter, or NULL). Manifest meta: {base, adapter_id, adapter_ids, method, dtype,
-- scale, max_difference, bound, path}.
CREATE VIEW merges AS
SELECT id AS merge_id,
       manifest->>'$.meta.base' AS base,
       manifest->>'$.meta.adapter_id' AS adapter_id,
       manifest->>'$.meta.method' AS method,
       (manifest->'$.meta.adapter_ids')::VARCHAR[] AS adapter_ids,
       manifest->>'$.meta.dtype' AS dtype,
       (manifest->>'$.meta.scale')::DOUBLE AS scale,
       (manifest->>'$.meta.max_difference')::DOUBLE AS max_difference,
       (manifest->>'$.meta.bound')::DOUBLE AS bound,
       manifest->>'$.meta.path' AS path,
       created_at
FROM objects WHERE kind = 'merge'
ORDER BY created_at, id;
