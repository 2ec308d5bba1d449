-- One line a selected row, with its content: what was trained on, and why.
CREATE VIEW selected_rows AS
SELECT pick.object_id AS selection_id, pick.rank, pick.capability, pick.reason, pick.score,
       pick.row_uid, pick.row_hash, content.messages, pick.answer, place.source,
       place.source_file, place.source_line, place.license
FROM parquet.stored_picks AS pick
LEFT JOIN parquet.stored_rows AS content ON content.row_uid = pick.row_uid
LEFT JOIN (
    SELECT row_uid, string_agg(DISTINCT source, ', ' ORDER BY source) AS source,
           any_value(source_file) AS source_file, any_value(source_line) AS source_line,
           any_value(license) AS license
    FROM row_places SEMI JOIN parquet.stored_picks USING (row_uid) GROUP BY row_uid
) AS place ON place.row_uid = pick.row_uid;
