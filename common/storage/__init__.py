"""Files on disk: run folders, leases on them, checkpoints, the cache."""
