CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    origin TEXT NOT NULL,
    state TEXT NOT NULL,
    run INTEGER NOT NULL DEFAULT 0,
    detail TEXT,
    left_out INTEGER NOT NULL DEFAULT 0,
    encoded INTEGER NOT NULL DEFAULT 0,
    copied INTEGER NOT NULL DEFAULT 0,
    pruned INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;

CREATE TABLE units (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    uri TEXT NOT NULL,
    size INTEGER NOT NULL,
    modality TEXT NOT NULL,
    metadata TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_until REAL,
    content_hash TEXT,
    pipeline_id TEXT,
    code TEXT,
    detail TEXT,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX units_by_state ON units (job_id, state, modality, name);

-- What jobs have put into collections, whichever job it was. A hint: what the collection itself says counts.
CREATE TABLE stored (
    collection TEXT NOT NULL,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    uri TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    pipeline_id TEXT NOT NULL,
    PRIMARY KEY (collection, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX stored_by_content ON stored (collection, content_hash, pipeline_id);

CREATE TABLE events (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;
