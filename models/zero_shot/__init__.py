"""Methods published for zero-shot hashing, one file each."""
