"""Methods published for retrieval between images and texts, one file each."""
