-- Aliases: other names of collections. They name the collection and not its row, so that it may be made anew behind them.

CREATE TABLE aliases (
    name       TEXT PRIMARY KEY,
    collection TEXT NOT NULL
) STRICT;
