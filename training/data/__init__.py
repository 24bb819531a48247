"""Data for training: manifests, shards, augmentation, batches. Decoding and preparation are bindery's own, the same as in serving."""
