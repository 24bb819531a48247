-- Segments: immutable files with part of a collection's vectors, prepared for fast search. A cache: each can be built again.
--
-- A segment stands for the vectors of one modality whose generation is in (after_generation, upto_generation]; what was written
-- later is in memory. So a row that is written again leaves its segment by itself, and no list of members is needed.

CREATE TABLE segments (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    collection_id    INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    modality         TEXT    NOT NULL,
    after_generation INTEGER NOT NULL,
    upto_generation  INTEGER NOT NULL,
    built_at         INTEGER NOT NULL, -- the collection's generation when the rows were read; later deletions are not in the files
    folder           TEXT    NOT NULL, -- its name below segments/COLLECTION_ID
    rows             INTEGER NOT NULL,
    files            TEXT    NOT NULL  -- JSON {name: {"bytes": n, "sha256": hex}}
) STRICT;
CREATE INDEX segments_by_modality ON segments (collection_id, modality, after_generation);

CREATE INDEX vectors_by_modality ON vectors (collection_id, modality, generation);

-- Raised by every change to the collection's segments.
ALTER TABLE collections ADD COLUMN layout INTEGER NOT NULL DEFAULT 0;
