-- What a search by code needs to find its share of the true neighbours, measured on the collection's own vectors for each pair of
-- modalities. A measurement, so it may go at any time.

CREATE TABLE probes (
    collection_id  INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    modality       TEXT    NOT NULL, -- what is looked for
    query_modality TEXT    NOT NULL, -- what it is looked for with; '' when queries did not say
    target         REAL    NOT NULL, -- the recall that was wanted
    share          REAL    NOT NULL, -- of the lists to scan
    depth          INTEGER NOT NULL, -- rows to compare for 10 hits; 0: no depth is enough, compare all
    depth_100      INTEGER NOT NULL, -- the same for 100 hits
    recall         REAL    NOT NULL, -- recall@10 with these
    bound          REAL    NOT NULL, -- its lower bound, one-sided, 95 %
    queries        INTEGER NOT NULL, -- how many were asked
    rows           INTEGER NOT NULL, -- in the segments at that time
    probed_at      REAL    NOT NULL, -- seconds since 1970
    PRIMARY KEY (collection_id, modality, query_modality)
) STRICT, WITHOUT ROWID;
