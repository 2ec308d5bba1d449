-- One line an erasure. Manifest meta: {reason, rows, began, redacted: {object_id: rows}}; the objects
-- that it took rows out of are its parents with the role 'redacted'.
CREATE VIEW erasures AS
SELECT id AS erasure_id,
       created_at AS erased_at,
       (manifest->>'$.meta.rows')::BIGINT AS rows,
       manifest->>'$.meta.reason' AS reason,
       (SELECT list(version.id ORDER BY version.created_at, version.id)
        FROM edges JOIN objects AS version ON version.id = edges.parent
        WHERE edges.child = objects.id AND edges.role = 'redacted'
          AND version.kind = 'dataset_version') AS version_ids
FROM objects WHERE kind = 'erasure'
ORDER BY created_at, id;
