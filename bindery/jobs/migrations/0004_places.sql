-- Where in the target a file's items are; targets that find them by their name have one place.
ALTER TABLE stored ADD COLUMN place TEXT NOT NULL DEFAULT '';
CREATE INDEX stored_by_place ON stored (collection, place);
