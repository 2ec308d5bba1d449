-- One line an upload. Manifest meta: {adapter_id, repo, revision, private, url}.
CREATE VIEW pushes AS
SELECT id AS push_id,
       manifest->>'$.meta.adapter_id' AS adapter_id,
       manifest->>'$.meta.repo' AS repo,
       manifest->>'$.meta.revision' AS revision,
       (manifest->>'$.meta.private')::BOOLEAN AS private,
       manifest->>'$.meta.url' AS url,
       created_at
FROM objects WHERE kind = 'push'
ORDER BY created_at, id;
