-- What could not be used at ingest, eval or select, and why.
CREATE VIEW rejects AS
SELECT coalesce(rejected.stage, owner.kind) AS stage,
       coalesce(rejected.source, owner.manifest->>'$.meta.name',
                owner.manifest->>'$.meta.subject') AS subject,
       rejected.base, rejected.reason, rejected.source_file, rejected.source_line,
       rejected.row_uid, rejected.row_hash, rejected.excerpt, rejected.object_id, owner.created_at
FROM parquet.stored_rejects AS rejected
JOIN objects AS owner ON owner.id = rejected.object_id;
