-- One line an upload. Manifest meta: {object_id, kind, adapter_id, repo, revision, private, request,
-- url, files: {path: sha256}}; a dataset has no adapter_id.
CREATE VIEW pushes AS
SELECT id AS push_id,
       manifest->>'$.meta.object_id' AS object_id,
       manifest->>'$.meta.kind' AS kind,
       manifest->>'$.meta.adapter_id' AS adapter_id,
       manifest->>'$.meta.repo' AS repo,
       manifest->>'$.meta.revision' AS revision,
       (manifest->>'$.meta.private')::BOOLEAN AS private,
       manifest->>'$.meta.url' AS url,
       created_at
FROM objects WHERE kind = 'push'
ORDER BY created_at, id;
