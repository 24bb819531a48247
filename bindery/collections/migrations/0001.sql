-- Collections, their items and vectors, label sets.
--
-- Row keys (`items.key`) are never reused (AUTOINCREMENT), so they order items by creation and an index in memory can be
-- brought up to date by "what has a higher generation than what I hold". Vectors have a table of their own: reading
-- metadata and filters must not drag them through the page cache.

CREATE TABLE collections (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    space      TEXT    NOT NULL,
    dimension  INTEGER NOT NULL,
    bundle     TEXT    NOT NULL,
    fields     TEXT    NOT NULL,           -- JSON {name: type}
    generation INTEGER NOT NULL DEFAULT 0, -- raised by every write to the collection's vectors
    created_at REAL    NOT NULL            -- seconds since 1970
) STRICT;

CREATE TABLE items (
    key           INTEGER PRIMARY KEY AUTOINCREMENT,
    collection_id INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    id            TEXT    NOT NULL,
    modality      TEXT    NOT NULL, -- never changes for a key: an item that changes its modality gets a new key
    uri           TEXT,
    start_s       REAL,
    end_s         REAL,
    metadata      TEXT    NOT NULL, -- JSON object, as given
    content_hash  TEXT,
    created_at    REAL    NOT NULL,
    updated_at    REAL    NOT NULL,
    UNIQUE (collection_id, id)
) STRICT;
CREATE INDEX items_in_order ON items (collection_id);
CREATE INDEX items_by_modality ON items (collection_id, modality);
CREATE INDEX items_by_uri ON items (collection_id, uri) WHERE uri IS NOT NULL;

CREATE TABLE vectors (
    item_key      INTEGER PRIMARY KEY REFERENCES items (key) ON DELETE CASCADE,
    collection_id INTEGER NOT NULL,
    generation    INTEGER NOT NULL, -- of the collection, when this vector was written
    modality      TEXT    NOT NULL,
    data          BLOB    NOT NULL  -- dimension x float16, little-endian
) STRICT;
CREATE INDEX vectors_by_generation ON vectors (collection_id, generation);

-- The declared fields of each item with their typed values (datetime: microseconds since 1970), for filters.
CREATE TABLE field_values (
    collection_id INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    value         ANY     NOT NULL,
    item_key      INTEGER NOT NULL REFERENCES items (key) ON DELETE CASCADE,
    PRIMARY KEY (collection_id, name, value, item_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX field_values_by_item ON field_values (item_key);

-- What went away recently, so that an index in memory need not compare all keys.
CREATE TABLE deletions (
    collection_id INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    generation    INTEGER NOT NULL,
    item_key      INTEGER NOT NULL,
    PRIMARY KEY (collection_id, generation, item_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE label_sets (
    name       TEXT PRIMARY KEY,
    labels     TEXT NOT NULL, -- JSON list
    templates  TEXT,          -- JSON list, or NULL for the bundle's own
    updated_at REAL NOT NULL
) STRICT;
