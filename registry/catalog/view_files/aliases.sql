-- One line a move of an alias; `current` marks where it points now.
CREATE VIEW aliases AS
SELECT manifest->>'$.identity.name' AS name,
       manifest->>'$.identity.target' AS target,
       manifest->>'$.identity.previous' AS previous,
       (manifest->>'$.identity.seq')::BIGINT AS seq,
       row_number() OVER (
           PARTITION BY manifest->>'$.identity.name'
           ORDER BY (manifest->>'$.identity.seq')::BIGINT DESC, created_at DESC, id DESC
       ) = 1 AS current,
       manifest->>'$.meta.reason' AS reason,
       created_at AS moved_at,
       id AS alias_id
FROM objects WHERE kind = 'alias'
ORDER BY name, seq;
