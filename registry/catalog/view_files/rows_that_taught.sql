-- rows_that_taught(adapter_id): every row that an adapter was trained on, and why. A prefix of the
-- id is enough. Up from that adapter alone, as the view adapter_selections goes from every one.
CREATE MACRO rows_that_taught(adapter) AS TABLE
WITH RECURSIVE made_from AS (
    SELECT id AS adapter_id, id AS ancestor FROM objects
    WHERE kind IN ('adapter', 'model') AND starts_with(id, adapter)
    UNION
    SELECT made_from.adapter_id, edges.parent
    FROM made_from
    JOIN edges ON edges.child = made_from.ancestor
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
), taught AS (
    SELECT DISTINCT made_from.adapter_id, edges.parent AS selection_id
    FROM made_from JOIN edges ON edges.child = made_from.ancestor
)
SELECT taught.adapter_id, picked.*
FROM taught
JOIN selected_rows AS picked ON picked.selection_id = taught.selection_id;
