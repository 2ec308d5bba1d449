-- adapters_that_saw(row_uid): every adapter (or model of changed tensors) whose training selected that
-- row, itself or through what it was started from or put together from. Down from the few selections
-- that have it, and not up from every adapter, as the view adapter_selections goes.
CREATE MACRO adapters_that_saw(uid) AS TABLE
WITH RECURSIVE saw AS (
    SELECT object_id AS selection_id FROM parquet.stored_bitmaps
    WHERE chunk = uid // 65536 AND get_bit(bitmap::BIT, (uid % 65536)::INTEGER) = 1
), taught AS (
    SELECT edges.child AS id, saw.selection_id
    FROM saw JOIN edges ON edges.parent = saw.selection_id
    UNION
    SELECT edges.child, taught.selection_id
    FROM taught
    JOIN edges ON edges.parent = taught.id
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
)
SELECT taught.id AS adapter_id, taught.selection_id
FROM taught
JOIN objects ON objects.id = taught.id AND objects.kind IN ('adapter', 'model');
