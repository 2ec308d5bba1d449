-- One line a merge of an adapter into its base. Manifest meta: {base, adapter_id, dtype, scale,
-- max_difference, bound, path}.
CREATE VIEW merges AS
SELECT id AS merge_id,
       manifest->>'$.meta.base' AS base,
       manifest->>'$.meta.adapter_id' AS adapter_id,
       manifest->>'$.meta.dtype' AS dtype,
       (manifest->>'$.meta.scale')::DOUBLE AS scale,
       (manifest->>'$.meta.max_difference')::DOUBLE AS max_difference,
       (manifest->>'$.meta.bound')::DOUBLE AS bound,
       manifest->>'$.meta.path' AS path,
       created_at
FROM objects WHERE kind = 'merge'
ORDER BY created_at, id;
