-- One line a row and dataset version that it is in; several where the version has several names.
CREATE VIEW rows AS
SELECT place.row_uid, place.row_hash, content.kind, content.messages, content.chosen,
       content.rejected, content.label, content.tools, place.split, place.cluster, place.source,
       place.source_file, place.source_line, place.license, place.tags, place.meta::JSON AS meta,
       place.dataset, place.version_id
FROM row_places AS place
JOIN parquet.stored_rows AS content ON content.row_uid = place.row_uid;
