-- The catalog's tables. They hold nothing that the manifests in the store do not say, so that
-- `gapmend rebuild` can make them again. What people query are the views in registry/views/; the
-- columns of the Parquet files are in registry/views/parquet.sql.

CREATE TABLE catalog.objects (
    id         VARCHAR   PRIMARY KEY,   -- 64 hexadecimal digits
    kind       VARCHAR   NOT NULL,
    created_at TIMESTAMP NOT NULL,      -- UTC, from the manifest
    manifest   JSON      NOT NULL       -- the whole manifest.json, in canonical form
);

CREATE TABLE catalog.edges (
    child  VARCHAR NOT NULL,
    parent VARCHAR NOT NULL,
    role   VARCHAR NOT NULL,
    PRIMARY KEY (child, parent, role)
);
