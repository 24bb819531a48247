-- What was said about a file when it was stored, and with it whether that has changed.
ALTER TABLE stored ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
