-- The columns of every Parquet file in the store: the reference for whoever writes one.
-- A writer may leave a nullable column out; types may be narrower (INTEGER for BIGINT). Every view
-- adds `object_id`, the id of the object whose folder the file is in: it is NOT in the file.
-- Written with zstd. row_uid is dense (Catalog.reserve_uids); row_hash is 64 hexadecimal digits.

-- objects/rows/<id>/rows.parquet: content alone, each row once, sorted by row_uid; dataset versions
-- share these objects and name them as parents (role 'rows').
CREATE TABLE parquet.stored_rows_columns (
    object_id VARCHAR,
    row_uid   BIGINT,
    row_hash  VARCHAR,      -- digest of kind and content
    kind      VARCHAR,      -- sft | text | preference | feedback
    messages  STRUCT(role VARCHAR, content VARCHAR, tool_calls VARCHAR, "name" VARCHAR,
                     train BOOLEAN)[],   -- tool_calls is JSON; the last three may be null
    chosen    STRUCT(role VARCHAR, content VARCHAR, tool_calls VARCHAR, "name" VARCHAR,
                     train BOOLEAN)[],   -- preference only
    rejected  STRUCT(role VARCHAR, content VARCHAR, tool_calls VARCHAR, "name" VARCHAR,
                     train BOOLEAN)[],   -- preference only
    label     BOOLEAN,      -- feedback only
    tools     VARCHAR       -- JSON list of tool definitions
);

-- objects/dataset_version/<id>/refs.parquet: which rows are in the version, in their order.
CREATE TABLE parquet.stored_refs_columns (
    object_id   VARCHAR,
    row_uid     BIGINT,
    row_hash    VARCHAR,
    split       VARCHAR,    -- train | dev | test | held (bridges clusters of train and test)
    tags        VARCHAR[],
    cluster     BIGINT,     -- near-duplicates share it
    source      VARCHAR,    -- name of the dataset in the spec
    source_file VARCHAR,    -- relative to the workspace
    source_line BIGINT,     -- from 1
    sources     STRUCT("file" VARCHAR, line BIGINT, split VARCHAR)[],  -- every occurrence
    license     VARCHAR,
    meta        VARCHAR     -- JSON object of the columns that have no place above
);

-- objects/places/<id>/places.parquet: where the rows of a version stand in another dataset that has
-- them, or in other files. The version is in the object's identity, the dataset's name in its meta.
CREATE TABLE parquet.stored_places_columns (
    object_id   VARCHAR,
    row_uid     BIGINT,
    source      VARCHAR,
    source_file VARCHAR,
    source_line BIGINT,
    sources     STRUCT("file" VARCHAR, line BIGINT, split VARCHAR)[]
);

-- objects/{dataset_version,places,eval,selection}/<id>/rejects.parquet: what could not be used, and why.
CREATE TABLE parquet.stored_rejects_columns (
    object_id   VARCHAR,
    stage       VARCHAR,    -- ingest | eval | select
    base        VARCHAR,    -- whose tokenizer decided; null at ingest
    source      VARCHAR,    -- name of the dataset in the spec
    reason      VARCHAR,
    row_uid     BIGINT,     -- null when it never became a row
    row_hash    VARCHAR,
    source_file VARCHAR,
    source_line BIGINT,
    excerpt     VARCHAR     -- the first 200 characters, invalid bytes escaped
);

-- objects/eval/<id>/samples.parquet: one line an item.
CREATE TABLE parquet.stored_samples_columns (
    object_id      VARCHAR,
    row_uid        BIGINT,
    row_hash       VARCHAR,
    cluster        BIGINT,
    prompt         VARCHAR, -- as rendered, without the shots when these are the same for all
    expected       VARCHAR,
    answer         VARCHAR,
    score          DOUBLE,  -- 0 to 1; for perplexity 1 / perplexity per byte
    loglikelihoods DOUBLE[],-- of the choices, in the order of the labels; null when generated
    prompt_tokens  BIGINT
);

-- objects/selection/<id>/rows.parquet: what is trained on, in the order of rank.
CREATE TABLE parquet.stored_picks_columns (
    object_id  VARCHAR,
    row_uid    BIGINT,
    row_hash   VARCHAR,
    capability VARCHAR,     -- or the guard that a replayed row is for
    reason     VARCHAR,     -- gap | replay | mend
    score      DOUBLE,      -- similarity to the failed item it was chosen for; null for replay
    rank       BIGINT,      -- position in the training order, from 0
    answer     VARCHAR,     -- the base's own answer, trained on instead of the row's; else null
    cut        BOOLEAN      -- it goes on where it stops: no end is trained behind it
);

-- objects/selection/<id>/bitmaps.parquet: the same row_uids as bits, one line a chunk, sorted.
-- See registry/lineage/bitmaps.py: uid is bit uid % 65,536 of chunk uid // 65,536, first bit highest.
CREATE TABLE parquet.stored_bitmaps_columns (
    object_id VARCHAR,
    chunk     BIGINT,
    bitmap    BLOB          -- 8,192 bytes
);

-- objects/metrics/<id>/metrics.parquet: what a run measured on its way, one line a figure. The run
-- is the object's parent with the role 'run'.
CREATE TABLE parquet.stored_metrics_columns (
    object_id VARCHAR,
    step      BIGINT,       -- the optimizer step that it was measured after, from 1
    "name"    VARCHAR,      -- loss | learning_rate | grad_norm | tokens | trained_tokens | ...
    "value"   DOUBLE,
    seconds   DOUBLE        -- since the start of the run, interruptions left out
);
