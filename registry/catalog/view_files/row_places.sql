-- One line a row, version and dataset that has it: what the version says of the row, and where the
-- row stands in the files that this dataset was last read from.
CREATE VIEW row_places AS
WITH latest AS (
    SELECT id, manifest->>'$.identity.version' AS version_id, manifest->>'$.meta.name' AS name
    FROM objects WHERE kind = 'places'
    QUALIFY row_number() OVER (PARTITION BY version_id, name ORDER BY created_at DESC, id DESC) = 1
)
SELECT refs.row_uid, version.name AS dataset, refs.object_id AS version_id, refs.row_hash,
       refs.split, refs.cluster, coalesce(place.source, version.name, refs.source) AS source,
       coalesce(place.source_file, refs.source_file) AS source_file,
       coalesce(place.source_line, refs.source_line) AS source_line,
       coalesce(place.sources, refs.sources) AS sources, refs.license, refs.tags, refs.meta
FROM parquet.stored_refs AS refs
LEFT JOIN dataset_versions AS version ON version.version_id = refs.object_id
LEFT JOIN latest ON latest.version_id = refs.object_id AND latest.name = version.name
LEFT JOIN parquet.stored_places AS place
  ON place.object_id = latest.id AND place.row_uid = refs.row_uid;
