-- Raised by every change of metadata alone, so that what a filter allows can be remembered until something changes.
ALTER TABLE collections ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
