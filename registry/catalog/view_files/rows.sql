-- One line a row and dataset version that it is in.
CREATE VIEW rows AS
SELECT refs.row_uid, refs.row_hash, content.kind, content.messages, content.chosen,
       content.rejected, content.label, content.tools, refs.split, refs.cluster, refs.source,
       refs.source_file, refs.source_line, refs.license, refs.tags, refs.meta::JSON AS meta,
       version.name AS dataset, refs.object_id AS version_id
FROM parquet.stored_refs AS refs
JOIN parquet.stored_rows AS content ON content.row_uid = refs.row_uid
LEFT JOIN dataset_versions AS version ON version.version_id = refs.object_id;
