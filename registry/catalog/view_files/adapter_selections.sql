-- Which selections an adapter was trained on: its own, that of the run which made it, and those of
-- the adapters that it was started from or put together from (roles 'start' and 'part').
CREATE VIEW adapter_selections AS
WITH RECURSIVE made_from AS (
    SELECT id AS adapter_id, id AS ancestor FROM objects WHERE kind IN ('adapter', 'model')
    UNION
    SELECT made_from.adapter_id, edges.parent
    FROM made_from
    JOIN edges ON edges.child = made_from.ancestor
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
)
SELECT DISTINCT made_from.adapter_id, edges.parent AS selection_id
FROM made_from
JOIN edges ON edges.child = made_from.ancestor
JOIN objects AS selection ON selection.id = edges.parent AND selection.kind = 'selection';
