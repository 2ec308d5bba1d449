-- One line an adapter, or model of changed tensors, and selection that rows were erased from: it
-- was trained on rows that are gone, and can't be trained again as it was.
CREATE VIEW unreproducible AS
WITH RECURSIVE lost AS (
    SELECT edges.parent AS selection_id, edges.child AS erasure_id, erasure.created_at AS erased_at,
           json_extract_string(erasure.manifest->'$.meta.redacted', edges.parent)::BIGINT AS rows
    FROM edges
    JOIN objects AS erasure ON erasure.id = edges.child AND erasure.kind = 'erasure'
    JOIN objects AS selection ON selection.id = edges.parent AND selection.kind = 'selection'
    WHERE edges.role = 'redacted'
), taught AS (
    SELECT edges.child AS id, lost.selection_id
    FROM (SELECT DISTINCT selection_id FROM lost) AS lost
    JOIN edges ON edges.parent = lost.selection_id
    UNION
    SELECT edges.child, taught.selection_id
    FROM taught
    JOIN edges ON edges.parent = taught.id
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
)
SELECT taught.id AS adapter_id, lost.selection_id, lost.erasure_id, lost.rows, lost.erased_at
FROM taught
JOIN lost USING (selection_id)
JOIN objects ON objects.id = taught.id
WHERE objects.kind = 'adapter'
   OR (objects.kind = 'model' AND (objects.manifest->>'$.identity.changed') IS NOT NULL)
ORDER BY lost.erased_at, adapter_id, lost.selection_id;
