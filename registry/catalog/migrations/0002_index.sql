-- Narrow tables of what is asked most: nobody has to read all manifests for a list, an alias or a
-- lineage. They say nothing that `objects` and `edges` don't: registry/catalog/tables.py fills them from the
-- views here, in this migration's own transaction and on every commit.
-- See docs/internals/decisions/0013-registry-at-100000.md.

-- A name for people: of what kind of thing it is, the words that tell it from the others.
CREATE VIEW catalog.node_facts AS
SELECT id, kind, created_at, coalesce(
    manifest->>'$.meta.name',
    nullif(CASE kind
        WHEN 'adapter' THEN concat_ws(' ', manifest->>'$.meta.base', manifest->>'$.meta.method',
                                      'round ' || (manifest->>'$.meta.round'))
        WHEN 'alias' THEN manifest->>'$.identity.name'
        WHEN 'eval' THEN concat_ws(' ', manifest->>'$.meta.subject', manifest->>'$.meta.split',
                                   manifest->>'$.meta.arm')
        WHEN 'forgetting' THEN concat_ws(' ', manifest->>'$.meta.split',
                                         'scale ' || (manifest->>'$.meta.scale'))
        WHEN 'merge' THEN coalesce(manifest->>'$.meta.method', manifest->>'$.identity.method')
        WHEN 'model' THEN manifest->>'$.meta.base'
        WHEN 'promotion' THEN CASE manifest->>'$.meta.promoted' WHEN 'true' THEN 'promoted'
                                                                WHEN 'false' THEN 'refused' END
        WHEN 'push' THEN concat_ws('@', manifest->>'$.meta.repo',
                                   left(manifest->>'$.meta.revision', 12))
        WHEN 'uids' THEN concat_ws(' uids from ', manifest->>'$.identity.count',
                                   manifest->>'$.identity.first')
        WHEN 'rows' THEN (manifest->>'$.meta.rows') || ' rows'
        WHEN 'run' THEN concat_ws(' ', manifest->>'$.meta.stage', manifest->>'$.meta.inputs.name',
                                  nullif(manifest->>'$.meta.status', 'done'))
        WHEN 'selection' THEN concat_ws(' for ', (manifest->>'$.meta.rows') || ' rows',
                                        manifest->>'$.meta.base')
    END, ''),
    manifest->>'$.identity.name', manifest->>'$.meta.subject', manifest->>'$.meta.base', ''
) AS label
FROM catalog.objects;

-- A number stands for an id: a step of a lineage compares 4 bytes and not 64 characters. Numbers
-- grow with time, so that ancestors are found in few blocks. They are this file's own: a rebuilt
-- catalog may number otherwise. `kind` is null for a parent that is not there.
CREATE TABLE catalog.nodes (
    number     INTEGER NOT NULL,
    id         VARCHAR NOT NULL,
    kind       VARCHAR,
    created_at TIMESTAMP,
    label      VARCHAR NOT NULL
);

-- Parents that are not there, should one of them be committed after all.
CREATE TABLE catalog.absent (
    id VARCHAR NOT NULL
);

CREATE TABLE catalog.links (
    child  INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    role   VARCHAR NOT NULL
);

CREATE VIEW catalog.adapter_facts AS
SELECT id, created_at,
       manifest->>'$.meta.name' AS name,
       manifest->>'$.meta.base' AS base,
       manifest->>'$.meta.method' AS method,
       TRY_CAST(manifest->>'$.meta.rank' AS DOUBLE)::BIGINT AS rank,
       TRY_CAST(manifest->>'$.meta.round' AS DOUBLE)::BIGINT AS round,
       TRY_CAST(manifest->>'$.meta.rows' AS DOUBLE)::BIGINT AS rows,
       TRY_CAST(manifest->>'$.meta.loss' AS DOUBLE) AS loss,
       TRY_CAST(manifest->>'$.meta.scale' AS DOUBLE) AS scale
FROM catalog.objects WHERE kind = 'adapter';

CREATE VIEW catalog.alias_facts AS
SELECT id,
       manifest->>'$.identity.name' AS name,
       (manifest->>'$.identity.seq')::BIGINT AS seq,
       manifest->>'$.identity.target' AS target,
       manifest->>'$.identity.previous' AS previous,
       manifest->>'$.meta.reason' AS reason,
       created_at AS moved_at
FROM catalog.objects WHERE kind = 'alias';

CREATE VIEW catalog.removal_facts AS
SELECT id, manifest->>'$.identity.object' AS adapter_id
FROM catalog.objects WHERE kind = 'removal';

CREATE TABLE catalog.adapters (
    id         VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL,
    name       VARCHAR,
    base       VARCHAR,
    method     VARCHAR,
    rank       BIGINT,
    round      BIGINT,
    rows       BIGINT,
    loss       DOUBLE,
    scale      DOUBLE
);

CREATE TABLE catalog.removals (
    id         VARCHAR NOT NULL,   -- of the object of kind 'removal'
    adapter_id VARCHAR NOT NULL    -- set aside: not listed any more
);

CREATE TABLE catalog.alias_moves (
    id       VARCHAR NOT NULL,   -- of the object of kind 'alias'
    name     VARCHAR NOT NULL,
    seq      BIGINT NOT NULL,    -- moves of this name, from 1
    target   VARCHAR NOT NULL,
    previous VARCHAR,
    reason   VARCHAR,
    moved_at TIMESTAMP NOT NULL
);
