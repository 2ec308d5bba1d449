-- One line a dataset: its newest version.
CREATE VIEW datasets AS
SELECT name, version_id, count(*) OVER (PARTITION BY name) AS versions,
       rows, rejects, train, dev, test, held, license, created_at
FROM dataset_versions
QUALIFY row_number() OVER (PARTITION BY name ORDER BY created_at DESC, version_id) = 1
ORDER BY name;
