"""Collections in a Milvus, for more items than one machine holds and for several services on the same collections.

    store ─► collection ─► rows (a record as a row), expressions (a filter in Milvus' words)
       └─────────┴───────► connection (pymilvus: timeouts, errors in our table)

Nothing is kept here: definitions, names and label sets are in Milvus too. docs/milvus.md tells what differs from `local`.
"""
