-- How often a unit was begun and nobody came back from it, and how often it was the only one in work then.
ALTER TABLE units ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE units ADD COLUMN deaths_alone INTEGER NOT NULL DEFAULT 0;
