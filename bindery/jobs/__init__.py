"""Batch indexing: a source is listed, its files go through the engine, and their vectors into a collection.

Killed at any moment and started again, a job repeats no committed work and skips nothing: the ledger knows what is done.
"""
