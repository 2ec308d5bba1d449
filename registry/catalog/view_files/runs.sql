-- One line a run of a stage, failed attempts included.
CREATE VIEW runs AS
SELECT id AS run_id,
       manifest->>'$.meta.stage' AS stage,
       manifest->>'$.meta.status' AS status,
       (manifest->>'$.meta.started_at')::TIMESTAMPTZ::TIMESTAMP AS started_at,
       (manifest->>'$.meta.ended_at')::TIMESTAMPTZ::TIMESTAMP AS ended_at,
       (manifest->>'$.meta.seconds')::DOUBLE AS seconds,
       (manifest->>'$.meta.seed')::DOUBLE::BIGINT AS seed,
       manifest->>'$.meta.code_version' AS code_version,
       manifest->'$.meta.inputs' AS inputs,
       manifest->'$.meta.config' AS config,
       manifest->'$.meta.result' AS result,
       manifest->'$.meta.outputs' AS outputs,
       manifest->'$.meta.environment' AS environment,
       manifest->'$.meta.hardware' AS hardware,
       manifest->>'$.meta.key' AS key
FROM objects WHERE kind = 'run'
ORDER BY created_at, id;
